"""A sub-model of a user's own text: a stored one learns it under a name of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from subllm.making.extraction.commit import run_record
from subllm.making.extraction.estimate import peak_memory_bytes
from subllm.making.extraction.learn_on import LearnedReport, LearningOn
from subllm.making.extraction.prepare_recover import PreparedRecovery
from subllm.making.extraction.recovering import likeness
from subllm.models.store.manifest import (
    CurveRecord,
    ModelManifest,
    RecoveryRun,
    RunRecord,
    TuningRecord,
)
from subllm.models.store.names import split_model_name
from subllm.models.store.store import Store
from subllm.progress import Progress


def tune(
    store: Store,
    prepared: PreparedRecovery,
    progress: Progress,
    stopped: Callable[[], bool],
    threads: int | None = None,
) -> LearnedReport:
    """See `LearningOn.learn`: what tells the next tokens of held-out own text better takes the
    new name, which exists from the first such checkpoint on."""
    return _Tuning(store, prepared, progress).learn(stopped, threads)


class _Tuning(LearningOn):
    doing = "tuned"

    def _told(self, start: CurveRecord, best: CurveRecord) -> Mapping[str, Any]:
        return {"tuning": self._record(start, best).model_dump(mode="json")}

    def _changes(self, start: CurveRecord, best: CurveRecord) -> Mapping[str, Any]:
        prepared = self._prepared
        return {
            "name": prepared.name,
            "tag": split_model_name(prepared.name).tag,
            "tunings": (*prepared.manifest.tunings, self._record(start, best)),
        }

    def _record(self, start: CurveRecord, best: CurveRecord) -> TuningRecord:
        prepared = self._prepared
        job = prepared.job
        return TuningRecord(
            origin=prepared.origin,
            manifest=prepared.digest,
            recipe=job.recipe.identity(),
            tokens=best.tokens,
            source=job.data.source,
            text=job.data.learned.digest,
            heldout=job.data.heldout.digest,
            before=likeness(start),
            after=likeness(best),
        )

    def _news(self, manifest: ModelManifest) -> str:
        record = manifest.tunings[-1]
        before, after = (math.exp(point.nll or 0.0) for point in (record.before, record.after))
        return (
            f"{self._prepared.name} is better now: perplexity of your held-out text "
            f"{before:.3f} -> {after:.3f} after {record.tokens:,} tokens"
        )

    def _made(self) -> bool:
        return self._prepared.served is not None

    def _sidecar(self, run: RecoveryRun) -> RunRecord:
        known = run_record(
            run.seconds, peak_memory_bytes(), torch.get_num_threads(), self._prepared.compute
        )
        return known.model_copy(update={"recovery": run, "made": self._prepared.made})
