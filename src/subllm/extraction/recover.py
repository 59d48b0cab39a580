"""Going on with a stored sub-model: each better checkpoint becomes what is served."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass

import torch

from subllm.errors import StoreError
from subllm.extraction.commit import block_entries, run_record
from subllm.extraction.estimate import peak_memory_bytes
from subllm.extraction.model_pass import ModelPass, pack_given
from subllm.extraction.plan import value_type
from subllm.extraction.prepare_recover import PreparedRecovery
from subllm.extraction.recovering import Learned, record_of, run_of, run_recovery
from subllm.extraction.steps import Given
from subllm.extraction.threads import torch_threads
from subllm.progress import Progress
from subllm.pruning.allocation import Allocation
from subllm.recovery.state import StateFile
from subllm.recovery.task import CurvePoint, Weights
from subllm.sparsity.packed_file import PackedReader, concat
from subllm.sparsity.pattern import Pattern
from subllm.store.files import tree_size
from subllm.store.manifest import (
    CurveRecord,
    ModelManifest,
    RecoveryRecord,
    RecoveryRun,
    canonical_json,
    sha256_of,
)
from subllm.store.recovery_state import Owner, claim, owner_of, state_path
from subllm.store.store import Store


@dataclass(frozen=True)
class RecoverReport:
    """What `subllm recover` shows. manifest: what the name refers to now; better: whether that
    changed; state_bytes: kept to go on with."""

    name: str
    digest: str
    manifest: ModelManifest
    better: bool
    run: RecoveryRun
    state_bytes: int
    peak_memory_bytes: int


def recover(
    store: Store,
    prepared: PreparedRecovery,
    progress: Progress,
    stopped: Callable[[], bool],
    threads: int | None = None,
) -> RecoverReport:
    """Learn until the budget is used up or `stopped` says so; every checkpoint that is better on
    held-out text is packed and becomes what the name refers to, all of it or nothing. The one
    before is left to `gc`.

    Raises LockedError where another process recovers the same name, StoreError where the name
    came to refer to another model meanwhile, and as `run_recovery`.
    """
    with torch_threads(threads), store.lock(f"recover-{prepared.name}", wait=False):
        return _Run(store, prepared, progress).run(stopped)


class _Run:
    """The recovery of one name, which this process alone does."""

    def __init__(self, store: Store, prepared: PreparedRecovery, progress: Progress) -> None:
        self._store, self._prepared, self._progress = store, prepared, progress
        self._directory = state_path(store.workspace, prepared.name)
        self._digest, self._manifest = prepared.digest, prepared.manifest

    def run(self, stopped: Callable[[], bool]) -> RecoverReport:
        store, prepared, first = self._store, self._prepared, self._prepared.manifest
        # What is mapped below stays whole, whatever the name refers to meanwhile.
        store.workspace.pin(store.manifest_path(prepared.digest))
        owner = owner_of(self._directory) if prepared.resumes else None
        if owner is None:
            shutil.rmtree(self._directory, ignore_errors=True)
        earlier = first.recovery.tokens if first.recovery else 0
        self._earlier = owner.earlier if owner is not None else earlier
        self._claim(prepared.digest)
        with PackedReader(store.blobs.path(first.blobs.own)) as pruned:
            outcome = run_recovery(
                store,
                prepared.job,
                prepared.reader,
                first.base.manifest,
                pruned,
                self._state.path.parent,
                prepared.device,
                prepared.compute,
                self._progress,
                lambda point, weights: self._serve(point, weights, pruned),
                stopped,
            )
        run = run_of(outcome, prepared.compute)
        better = self._digest != prepared.digest
        if better or (prepared.resumes and first.recovery is not None):
            self._put_run(run)
        return RecoverReport(
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
        claim(self._store, Owner(prepared.name, prepared.identity, manifests, self._earlier))

    def _serve(self, point: CurvePoint, weights: Weights, pruned: PackedReader) -> None:
        """Pack these weights and let the name refer to them."""
        store, prepared = self._store, self._prepared
        learned = Learned(self._directory, pruned)
        learned.write(point, weights)
        curve = self._curve()
        path, best = learned.best(curve)
        assert path is not None
        packing = self._directory / "packing"
        patterns = {
            entry.name: Pattern.parse(entry.pattern)
            for entry in self._manifest.tensors
            if entry.blob == "own"
        }
        passes = ModelPass(
            prepared.reader,
            prepared.device,
            prepared.compute,
            store.blobs.path(self._manifest.blobs.shared),
            prepared.batch,
            self._progress,
        )
        with PackedReader(path) as better:
            result = pack_given(
                passes,
                Given(pruned, better),
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
        record = self._record(curve[0], best)
        shared = [entry for entry in self._manifest.tensors if entry.blob == "shared"]
        told = {"plan": prepared.manifest.plan, "recovery": record.model_dump(mode="json")}
        manifest = self._manifest.model_copy(
            update={
                "plan": sha256_of(canonical_json(told)),
                "tensors": (*entries, *shared),
                "blobs": self._manifest.blobs.model_copy(update={"own": own}),
                "perplexity": result.perplexity,
                "recovery": record,
            }
        )
        self._commit(manifest)
        self._put_run(RecoveryRun(seconds=best.seconds, compute=prepared.compute, curve=curve))
        shutil.rmtree(packing, ignore_errors=True)
        path.unlink()

    def _commit(self, manifest: ModelManifest) -> None:
        store, name = self._store, self._prepared.name
        digest = store.put_manifest(manifest)
        with store.workspace.mutation():
            if store.names().get(name) != self._digest:
                raise StoreError(
                    f"{name} was replaced or removed while it was recovered; what was learned "
                    "does not fit it any more"
                )
            self._claim(self._digest, digest)
            store.set_ref(name, digest)
        self._digest, self._manifest = digest, manifest
        value = manifest.perplexity[manifest.language]
        self._progress.note(
            f"{name} is better now: {value.agreement:.1%} of held-out tokens have the dense "
            f"base's first choice, perplexity {value.after:.3f}"
        )

    def _curve(self) -> tuple[CurveRecord, ...]:
        """So far; the state is saved before a better point is told."""
        about = self._state.about()
        assert about is not None
        return tuple(CurveRecord(**point) for point in about["curve"])

    def _record(self, start: CurveRecord, best: CurveRecord) -> RecoveryRecord:
        """All runs together; from where the first one of them began, as far as the held-out
        text was the same."""
        record = record_of(self._prepared.job, start, best)
        changes: dict[str, object] = {"budget": "", "tokens": self._earlier + best.tokens}
        known = self._prepared.manifest.recovery
        if known is not None and known.heldout == record.heldout:
            changes["before"] = known.before
        return record.model_copy(update=changes)

    def _put_run(self, run: RecoveryRun) -> None:
        """The sidecar of what is served: that of the extraction, with how this went."""
        store = self._store
        known = store.run_record(self._prepared.digest) or run_record(
            run.seconds, peak_memory_bytes(), torch.get_num_threads()
        )
        store.put_run_record(self._digest, known.model_copy(update={"recovery": run}))
