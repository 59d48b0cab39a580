"""Carry out a prepared extraction and report what came of it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from subllm.engine.backends.torch.device import failures
from subllm.kernels.sparsity.layout import LAYOUT_VERSION, Values
from subllm.kernels.sparsity.packed_file import PackedReader, concat
from subllm.making.extraction.blocks.open import open_blocks
from subllm.making.extraction.blocks.torch_blocks import TorchBlocks
from subllm.making.extraction.blockwise import BlockRecipe, OnBlock
from subllm.making.extraction.commit import NewModel, Parts, commit_model, keep_made, run_record
from subllm.making.extraction.device import END_OTHERS
from subllm.making.extraction.estimate import peak_memory_bytes, streamed_needs
from subllm.making.extraction.global_pass import choose_all, gradients
from subllm.making.extraction.learn_masks import MaskTraining
from subllm.making.extraction.model_pass import ModelPass, PassResult, pack_given
from subllm.making.extraction.prepare import Prepared
from subllm.making.extraction.recovering import (
    Bench,
    Learned,
    Pruned,
    RecoveryJob,
    finished_run,
    record_of,
    run_of,
    run_recovery,
)
from subllm.making.extraction.shared import find_shared, shared_entries, write_shared
from subllm.making.extraction.steps import BlockStep, Choose
from subllm.making.extraction.threads import torch_threads
from subllm.making.pruning.maskllm import MaskLlm
from subllm.making.pruning.method import WHOLE_MODEL
from subllm.models.store.files import write_atomic
from subllm.models.store.manifest import ModelManifest, RecoveryRun, TensorEntry
from subllm.models.store.store import Store
from subllm.progress import Progress


@dataclass(frozen=True)
class ExtractionReport:
    """What `subllm extract` shows. Sizes in bytes; dense_bytes is the base in bf16."""

    name: str
    digest: str
    manifest: ModelManifest
    cached: bool
    resumed_at: int
    compute: str  # dtype that blocks ran in
    dense_bytes: int
    own_bytes: int
    shared_bytes: int
    seconds: float
    peak_memory_bytes: int
    recovery: RecoveryRun | None = None


def extract(
    store: Store,
    prepared: Prepared,
    progress: Progress,
    threads: int | None = None,
    on_block: OnBlock | None = None,
) -> ExtractionReport:
    """Prune, pack and commit; resumes a killed run of the same plan and serves an equal
    plan from the cache. Raises ExtractionError, StoreError, WeightsError."""
    started = time.monotonic()
    plan = prepared.plan
    with (
        torch_threads(threads),
        store.lock(plan.workspace, on_wait=progress.note),
        failures(prepared.device, "the extraction", END_OTHERS),
    ):
        # Looked up under the lock: another process may just have finished the same plan.
        cached = store.find_plan(plan.digest)
        if cached is not None:
            manifest = cached[1]
            if manifest.name != prepared.name:
                manifest = manifest.model_copy(
                    update={"name": prepared.name, "tag": prepared.options.tag}
                )
            digest = store.put_manifest(manifest)
            keep_made(store, digest, prepared.options.made, store.resolve(cached[0]))
            store.set_ref(prepared.name, digest)
            return _report(store, prepared, digest, manifest, started)
        workspace = store.partial(plan.workspace)
        made = _Run(store, prepared, progress, workspace).run(on_block)
        shutil.rmtree(workspace, ignore_errors=True)
        report = _report(store, prepared, made.digest, made.manifest, started, made)
        record = run_record(
            report.seconds, report.peak_memory_bytes, torch.get_num_threads(), plan.compute
        ).model_copy(update={"recovery": made.recovery, "made": prepared.options.made})
        store.put_run_record(made.digest, record)
        return report


@dataclass(frozen=True)
class _Made:
    """resumed_at: the block that pruning went on at; recovery: how that went, if it did."""

    resumed_at: int
    digest: str
    manifest: ModelManifest
    recovery: RecoveryRun | None


class _Run:
    """One extraction that was not in the cache."""

    def __init__(
        self, store: Store, prepared: Prepared, progress: Progress, workspace: Path
    ) -> None:
        self._store = store
        self._prepared = prepared
        self._progress = progress
        self._workspace = workspace

    def run(self, on_block: OnBlock | None) -> _Made:
        prepared, plan = self._prepared, self._prepared.plan
        shared, entries = self._shared()
        file = shared if isinstance(shared, Path) else self._store.blobs.path(shared)
        passes = ModelPass(
            prepared.reader,
            prepared.device,
            plan.compute,
            file,
            prepared.options.batch,
            self._progress,
        )
        record = run = unrounded = None
        if prepared.recovery is None:
            result = self._prune(passes, plan.values, prepared.heldout, on_block)
            resumed_at = result.resumed_at
        else:
            pruned, resumed_at = self._pruned(passes, on_block)
            with PackedReader(pruned) as packed:
                learned = Learned(self._workspace, packed)
                run = self._recover(prepared.recovery, packed, learned)
                better, best = learned.best(run.curve)
                result = self._pack(passes, packed, learned, better)
            record = record_of(prepared.recovery, run.curve[0], best)
            unrounded = better if prepared.options.keep_unrounded else None
        digest, manifest = commit_model(
            self._store,
            NewModel(prepared.name, prepared.options.tag, plan, prepared.base, prepared.reader),
            Parts(result.files, shared, entries, prepared.tokenizer.to_bundle(), unrounded),
            result.perplexity,
            self._workspace,
            record,
        )
        return _Made(resumed_at, digest, manifest, run)

    def _prune(
        self,
        passes: ModelPass,
        values: Values,
        heldout: Mapping[str, npt.NDArray[np.int32]],
        on_block: OnBlock | None,
    ) -> PassResult:
        """Choose what is kept, and pack it as `values`."""
        prepared, allocation = self._prepared, self._prepared.plan.allocation
        choosing = self._choosing()
        streamed = streamed_needs(prepared.method.needs, values)
        return passes.run(
            BlockRecipe([choosing], allocation, values),
            prepared.tokens if streamed else None,
            heldout,
            self._workspace,
            on_block=on_block,
        )

    def _pruned(self, passes: ModelPass, on_block: OnBlock | None) -> tuple[Path, int]:
        """The pruned blocks in one file, in bf16: what recovery starts from; and the block that
        pruning went on at."""
        whole = self._workspace / "pruned.packed"
        if whole.exists():
            layers = self._prepared.reader.spec.num_layers
            self._progress.note("resuming after pruning")
            return whole, layers
        result = self._prune(passes, "bf16", {}, on_block)
        concat(result.files, whole)
        for path in result.files:
            path.unlink()
        return whole, result.resumed_at

    def _recover(self, job: RecoveryJob, pruned: PackedReader, learned: Learned) -> RecoveryRun:
        """Once: a run that was killed later finds how it went."""
        prepared, done = self._prepared, self._workspace / "recovered.json"
        directory = self._workspace / "recovery"
        if done.exists():
            return RecoveryRun.model_validate_json(done.read_bytes())
        used_up = finished_run(directory, prepared.plan.compute)
        if used_up is not None:
            return used_up
        outcome = run_recovery(
            self._store,
            job,
            Pruned(prepared.reader, prepared.plan.base, pruned, prepared.plan.values),
            Bench(directory, prepared.device, prepared.plan.compute),
            self._progress,
            learned.write,
        )
        run = run_of(outcome, prepared.plan.compute)
        write_atomic(done, run.model_dump_json().encode(), self._store.workspace.partials)
        return run

    def _pack(
        self, passes: ModelPass, pruned: PackedReader, learned: Learned, path: Path | None
    ) -> PassResult:
        """What was learned, packed, and measured before and after that."""
        prepared, plan = self._prepared, self._prepared.plan
        with ExitStack() as opened:
            return pack_given(
                passes,
                learned.given(path, opened),
                plan.allocation,
                plan.values,
                prepared.tokens,
                prepared.heldout,
                self._workspace / "packing",
            )

    def _choosing(self) -> BlockStep:
        """The step that chooses; for a method of the whole model all is chosen already."""
        prepared = self._prepared
        method, plan = prepared.method, prepared.plan
        if not method.needs & WHOLE_MODEL:
            return Choose(method, plan.allocation)
        blocks = open_blocks(prepared.reader, prepared.device, plan.compute)
        assert isinstance(blocks, TorchBlocks), "int8 blocks meet no needs of the whole model"
        if isinstance(method, MaskLlm):
            assert prepared.tokens is not None
            found = MaskTraining(
                blocks, plan.allocation, method.training, prepared.tokens, self._progress
            ).run()
        else:
            found = gradients(blocks, prepared.texts, self._progress)
        return choose_all(blocks, method, plan.allocation, found, self._workspace)

    def _shared(self) -> tuple[Path | str, list[TensorEntry]]:
        """The shared part, as a new file or as the blob that the store has."""
        plan, reader = self._prepared.plan, self._prepared.reader
        known = find_shared(self._store, plan.base, plan.head, LAYOUT_VERSION)
        if known is not None:
            return known.blobs.shared, shared_entries(known)
        self._workspace.mkdir(parents=True, exist_ok=True)
        path = self._workspace / "shared.packed"
        return path, write_shared(reader, plan.head, path, self._progress)


def _report(
    store: Store,
    prepared: Prepared,
    digest: str,
    manifest: ModelManifest,
    started: float,
    made: _Made | None = None,
) -> ExtractionReport:
    """made: None for what the store had."""
    reader = prepared.reader
    return ExtractionReport(
        name=prepared.name,
        digest=digest,
        manifest=manifest,
        cached=made is None,
        resumed_at=made.resumed_at if made else 0,
        compute=prepared.plan.compute,
        dense_bytes=sum(2 * int(np.prod(reader.shape(name))) for name in reader.names()),
        own_bytes=store.blobs.size(manifest.blobs.own),
        shared_bytes=store.blobs.size(manifest.blobs.shared),
        seconds=time.monotonic() - started,
        peak_memory_bytes=peak_memory_bytes(),
        recovery=made.recovery if made else None,
    )
