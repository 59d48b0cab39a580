"""Letting a stored sub-model learn on: its best checkpoint becomes what a name refers to."""

from __future__ import annotations

import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from subllm.engine.backends.torch.device import failures
from subllm.errors import StoreError
from subllm.kernels.sparsity.packed_file import PackedReader, concat
from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.extraction.commit import block_entries
from subllm.making.extraction.device import END_OTHERS
from subllm.making.extraction.estimate import peak_memory_bytes
from subllm.making.extraction.model_pass import ModelPass, pack_given
from subllm.making.extraction.plan import value_type
from subllm.making.extraction.prepare_recover import PreparedRecovery
from subllm.making.extraction.recovering import Bench, Learned, Pruned, run_of, run_recovery
from subllm.making.extraction.threads import torch_threads
from subllm.making.pruning.allocation import Allocation
from subllm.making.recovery.state import StateFile
from subllm.making.recovery.task import CurvePoint, Weights
from subllm.models.store.files import tree_size
from subllm.models.store.manifest import (
    CurveRecord,
    ModelManifest,
    RecoveryRun,
    RunRecord,
    canonical_json,
    sha256_of,
)
from subllm.models.store.recovery_state import Owner, claim, owner_of, state_path
from subllm.models.store.store import Store
from subllm.models.store.unrounded import drop_unrounded, keep_unrounded
from subllm.progress import Progress

_FIRST = 600.0  # seconds until the first checkpoint is packed
_LEARNING = 9.0  # times as long as a checkpoint took to be packed, until the next one is


@dataclass(frozen=True)
class LearnedReport:
    """What the command line shows. digest, manifest: what the name refers to now, None and those
    of the model that was learned on where it refers to nothing; better: whether that changed;
    state_bytes: kept to go on with."""

    name: str
    digest: str | None
    manifest: ModelManifest
    better: bool
    run: RecoveryRun
    state_bytes: int
    peak_memory_bytes: int


class LearningOn(ABC):
    """One name, whose models this process alone makes.

    doing  what happens to it, for messages
    """

    doing: ClassVar[str]

    def __init__(
        self,
        store: Store,
        prepared: PreparedRecovery,
        progress: Progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._prepared, self._progress = store, prepared, progress
        self._directory = state_path(store.workspace, prepared.name)
        self._digest, self._manifest = prepared.served, prepared.manifest
        if prepared.served not in (None, prepared.digest):
            self._manifest = store.model(prepared.name)
        self._earlier = prepared.earlier
        self._clock = clock
        self._due = clock() + _FIRST  # when a better one is packed before the end

    @abstractmethod
    def _told(self, start: CurveRecord, best: CurveRecord) -> Mapping[str, Any]:
        """JSON-ready: what, beside the plan of the model that learned on, makes the new one's."""

    @abstractmethod
    def _changes(self, start: CurveRecord, best: CurveRecord) -> Mapping[str, Any]:
        """The manifest's fields that say so."""

    @abstractmethod
    def _news(self, manifest: ModelManifest) -> str:
        """Of a better one, for whoever watches."""

    @abstractmethod
    def _made(self) -> bool:
        """Whether what the name refers to was made by the state that this goes on with."""

    @abstractmethod
    def _sidecar(self, run: RecoveryRun) -> RunRecord: ...

    def learn(self, stopped: Callable[[], bool], threads: int | None = None) -> LearnedReport:
        """Learn until the budget is used up or `stopped` says so; the checkpoint that is best on
        held-out text is packed and becomes what the name refers to, all of it or nothing: at the
        end, and before it as often as that takes a tenth of the time. The one before is left to
        `gc`.

        Raises LockedError where another process does the same, StoreError where the name came to
        refer to another model meanwhile, and as `run_recovery`.
        """
        name = self._prepared.name
        with (
            torch_threads(threads),
            self._store.lock(f"recover-{name}", wait=False),
            failures(self._prepared.device, "what it learns", END_OTHERS),
        ):
            return self._run(stopped)

    def _run(self, stopped: Callable[[], bool]) -> LearnedReport:
        store, prepared, first = self._store, self._prepared, self._prepared.manifest
        # What is mapped below stays whole, whatever the name refers to meanwhile.
        store.workspace.pin(store.manifest_path(prepared.digest))
        owner = owner_of(self._directory) if prepared.resumes else None
        if owner is None:
            shutil.rmtree(self._directory, ignore_errors=True)
        else:
            self._earlier = owner.earlier
        self._claim(*filter(None, [prepared.served]))
        with ExitStack() as opened:
            pruned = opened.enter_context(PackedReader(store.blobs.path(first.blobs.own)))
            unrounded = None
            if prepared.unrounded is not None:
                unrounded = opened.enter_context(PackedReader(prepared.unrounded))
            if owner is not None:
                self._serve(pruned)  # what a run that was killed had not packed
            outcome = run_recovery(
                store,
                prepared.job,
                Pruned(
                    prepared.reader,
                    first.base.manifest,
                    pruned,
                    value_type(first.values),
                    unrounded,
                ),
                Bench(self._state.path.parent, prepared.device, prepared.compute),
                self._progress,
                lambda point, weights: self._keep(point, weights, pruned),
                stopped,
            )
            self._serve(pruned)
        run = run_of(outcome, prepared.compute)
        better = self._digest != prepared.served
        if better or (prepared.resumes and self._made()):
            self._put_run(run)
        return LearnedReport(
            name=prepared.name,
            digest=self._digest,
            manifest=self._manifest,
            better=better,
            run=run,
            state_bytes=tree_size(self._directory),
            peak_memory_bytes=peak_memory_bytes(),
        )

    @property
    def _state(self) -> StateFile:
        return StateFile(self._directory / "state")

    def _claim(self, *manifests: str) -> None:
        prepared = self._prepared
        origin = (prepared.origin, prepared.digest)
        claim(
            self._store,
            Owner(prepared.name, prepared.identity, manifests, self._earlier, *origin),
        )

    def _keep(self, point: CurvePoint, weights: Weights, pruned: PackedReader) -> None:
        """Of a better point; packed now and then, as that takes minutes that nothing learns."""
        Learned(self._directory, pruned).write(point, weights)
        began = self._clock()
        if began >= self._due:
            self._serve(pruned)
            now = self._clock()
            self._due = now + (now - began) * _LEARNING

    def _serve(self, pruned: PackedReader) -> None:
        """Pack the best weights so far, unless they are, and let the name refer to them."""
        store, prepared = self._store, self._prepared
        learned = Learned(self._directory, pruned)
        curve = self._curve()
        if not curve:
            return
        path, best = learned.best(curve)
        if path is None:
            return
        packing = self._directory / "packing"
        patterns = {
            entry.name: Pattern.parse(entry.pattern)
            for entry in self._manifest.tensors
            if entry.blob == "own" and entry.values != "f32"
        }
        passes = ModelPass(
            prepared.reader,
            prepared.device,
            prepared.compute,
            store.blobs.path(self._manifest.blobs.shared),
            prepared.batch,
            self._progress,
        )
        with ExitStack() as opened:
            result = pack_given(
                passes,
                learned.given(path, opened),
                Allocation.of_patterns(patterns),
                value_type(self._manifest.values),
                prepared.fitted,
                prepared.heldout,
                packing,
            )
        own_file = packing / "own.packed"
        concat(result.files, own_file)
        entries = block_entries(own_file)
        own = store.blobs.adopt(own_file)
        told = {"plan": prepared.manifest.plan, **self._told(curve[0], best)}
        shared = [entry for entry in self._manifest.tensors if entry.blob == "shared"]
        manifest = self._manifest.model_copy(
            update={
                "plan": sha256_of(canonical_json(told)),
                "tensors": (*entries, *shared),
                "blobs": self._manifest.blobs.model_copy(update={"own": own}),
                "perplexity": result.perplexity,
                **self._changes(curve[0], best),
            }
        )
        self._commit(manifest, path)
        self._put_run(RecoveryRun(seconds=best.seconds, compute=prepared.compute, curve=curve))
        shutil.rmtree(packing, ignore_errors=True)
        path.unlink()
        learned.rounded(path).unlink(missing_ok=True)

    def _commit(self, manifest: ModelManifest, unrounded: Path) -> None:
        store, name = self._store, self._prepared.name
        digest = store.put_manifest(manifest)
        keep_unrounded(store, digest, unrounded)
        with store.workspace.mutation():
            if store.names().get(name) != self._digest:
                raise StoreError(
                    f"{name} was replaced or removed while it was {self.doing}; what was learned "
                    "does not fit it any more"
                )
            self._claim(*filter(None, [self._digest]), digest)
            store.set_ref(name, digest)
            if self._digest is not None:
                drop_unrounded(store, self._digest)
        self._digest, self._manifest = digest, manifest
        self._progress.note(self._news(manifest))

    def _curve(self) -> tuple[CurveRecord, ...]:
        """So far, none where no state was saved; it is saved before a better point is told."""
        about = self._state.about()
        return tuple(CurveRecord(**point) for point in about["curve"]) if about else ()

    def _put_run(self, run: RecoveryRun) -> None:
        """The sidecar of what is served."""
        assert self._digest is not None
        self._store.put_run_record(self._digest, self._sidecar(run))
