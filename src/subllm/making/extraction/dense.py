"""`subllm add`: a dense base packed as it is, servable beside its sub-models."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from subllm.errors import StoreError
from subllm.kernels.sparsity.layout import LAYOUT_VERSION
from subllm.making.extraction.commit import NewModel, Parts, commit_model, keep_made, run_record
from subllm.making.extraction.defaults import DENSE_SAMPLES, DENSE_VALUES
from subllm.making.extraction.dense_blocks import Calibrated, calibrated, mostly_coded, write_plain
from subllm.making.extraction.estimate import peak_memory_bytes
from subllm.making.extraction.plan import ExtractionPlan, value_type
from subllm.making.extraction.prepare import open_base
from subllm.making.extraction.quantiser import needs_of
from subllm.making.extraction.shared import DENSE, find_shared, shared_entries, write_shared
from subllm.making.extraction.threads import torch_threads
from subllm.making.pruning.allocation import Allocation
from subllm.models.store.manifest import MadeBy, MethodRecord, ModelManifest
from subllm.models.store.names import model_name
from subllm.models.store.store import Store
from subllm.progress import Progress


@dataclass(frozen=True)
class DenseReport:
    """What `subllm add` shows; sizes in bytes."""

    name: str
    digest: str
    manifest: ModelManifest
    cached: bool
    own_bytes: int
    shared_bytes: int
    seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class DenseForm:
    """How a dense model is stored: value types of matrices and of the head, and the calibration
    sequences of all packs by which int4 is rounded (0: by the weights alone)."""

    values: str = DENSE_VALUES
    head: str = "int8"
    samples: int = DENSE_SAMPLES


_USUAL = DenseForm()


def add_dense(
    store: Store,
    base: str,
    progress: Progress,
    form: DenseForm = _USUAL,
    *,
    tag: str = "",
    threads: int | None = None,
    made: MadeBy | None = None,
) -> DenseReport:
    """Pack every block of `base` without pruning, as `base-dense[-tag]`. Same store rules
    as `extract`; a model of other value types that had the name is replaced, which is said.

    int4 rounds by calibration what the base does not hold in int4 codes already. made: how to
    ask for it again. Raises as `extract`."""
    coded, head_coded = value_type(form.values), value_type(form.head)
    started = time.monotonic()
    base_digest, manifest, reader, tokenizer = open_base(store, base)
    plan = ExtractionPlan(
        base=base_digest,
        language="dense",
        method=MethodRecord(name="none"),
        allocation=Allocation(DENSE),
        values=coded,
        head=head_coded,
        calibration=None,
        compute="float32",
    )
    rounding: Calibrated | None = None
    if form.samples and needs_of(coded) and not mostly_coded(reader):
        rounding = calibrated(store, plan, reader, tokenizer, manifest.prompt, form.samples)
        plan = rounding.plan
    name = model_name(base, "dense", tag)
    _say_replaced(store, name, plan, progress)
    with torch_threads(threads), store.lock(plan.workspace, on_wait=progress.note):
        found = store.find_plan(plan.digest)
        if found is not None:
            model, cached = found[1].model_copy(update={"name": name, "tag": tag}), True
            digest = store.put_manifest(model)
            keep_made(store, digest, made, store.resolve(found[0]))
            store.set_ref(name, digest)
        else:
            workspace = store.partial(plan.workspace)
            workspace.mkdir(parents=True, exist_ok=True)
            known = find_shared(store, base_digest, head_coded, LAYOUT_VERSION)
            if known is not None:
                shared: Path | str = known.blobs.shared
                entries = shared_entries(known)
            else:
                shared = workspace / "shared.packed"
                entries = write_shared(reader, head_coded, shared, progress)
            if rounding is not None:
                blocks = rounding.write(workspace, progress)
            else:
                blocks = [write_plain(reader, coded, workspace / "blocks.packed", progress)]
            digest, model = commit_model(
                store, NewModel(name, tag, plan, manifest, reader),
                Parts(blocks, shared, entries, tokenizer.to_bundle()), {}, workspace,
            )  # fmt: skip
            shutil.rmtree(workspace, ignore_errors=True)
            cached = False
        report = DenseReport(
            name=name,
            digest=digest,
            manifest=model,
            cached=cached,
            own_bytes=store.blobs.size(model.blobs.own),
            shared_bytes=store.blobs.size(model.blobs.shared),
            seconds=time.monotonic() - started,
            peak_memory_bytes=peak_memory_bytes(),
        )
        if not cached:
            store.put_run_record(
                digest,
                run_record(
                    report.seconds, report.peak_memory_bytes, torch.get_num_threads(),
                    plan.compute if rounding is not None else "",
                ).model_copy(update={"made": made}),
            )  # fmt: skip
        return report


def _say_replaced(store: Store, name: str, plan: ExtractionPlan, progress: Progress) -> None:
    digest = store.names().get(name)
    try:
        old = store.manifest(digest) if digest else None
    except StoreError:
        return  # damaged; being replaced mends it
    if isinstance(old, ModelManifest) and old.plan != plan.digest:
        progress.note(
            f"{name} exists ({old.values}, head {old.head}) and will be replaced; --tag keeps both"
        )
