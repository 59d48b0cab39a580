"""Going on with a stored sub-model: its best checkpoint becomes what is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from subllm.making.extraction.commit import run_record
from subllm.making.extraction.estimate import peak_memory_bytes
from subllm.making.extraction.learn_on import LearnedReport, LearningOn
from subllm.making.extraction.prepare_recover import PreparedRecovery
from subllm.making.extraction.recovering import record_of
from subllm.models.store.manifest import (
    CurveRecord,
    ModelManifest,
    RecoveryRecord,
    RecoveryRun,
    RunRecord,
)
from subllm.models.store.store import Store
from subllm.progress import Progress


def recover(
    store: Store,
    prepared: PreparedRecovery,
    progress: Progress,
    stopped: Callable[[], bool],
    threads: int | None = None,
) -> LearnedReport:
    """See `LearningOn.learn`: what is nearer to the dense base takes the name."""
    return _Recovery(store, prepared, progress).learn(stopped, threads)


class _Recovery(LearningOn):
    doing = "recovered"

    def _told(self, start: CurveRecord, best: CurveRecord) -> Mapping[str, Any]:
        return {"recovery": self._record(start, best).model_dump(mode="json")}

    def _changes(self, start: CurveRecord, best: CurveRecord) -> Mapping[str, Any]:
        return {"recovery": self._record(start, best)}

    def _record(self, start: CurveRecord, best: CurveRecord) -> RecoveryRecord:
        """All runs together; from where the first one of them began, as far as held-out text and
        teacher were the same."""
        record = record_of(self._prepared.job, start, best)
        changes: dict[str, object] = {"budget": "", "tokens": self._earlier + best.tokens}
        known = self._prepared.manifest.recovery
        same = (record.heldout, record.teacher)
        if known is not None and (known.heldout, known.teacher) == same:
            changes["before"] = known.before
        return record.model_copy(update=changes)

    def _news(self, manifest: ModelManifest) -> str:
        value = manifest.perplexity[manifest.language]
        return (
            f"{self._prepared.name} is better now: {value.agreement:.1%} of held-out tokens have "
            f"the dense base's first choice, perplexity {value.after:.3f}"
        )

    def _made(self) -> bool:
        return self._prepared.manifest.recovery is not None

    def _sidecar(self, run: RecoveryRun) -> RunRecord:
        """That of the extraction, with how this went."""
        known = self._store.run_record(self._prepared.digest) or run_record(
            run.seconds, peak_memory_bytes(), torch.get_num_threads()
        )
        return known.model_copy(update={"recovery": run})
