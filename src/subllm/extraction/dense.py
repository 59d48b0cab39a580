"""`subllm add`: a dense base packed as it is, servable beside its sub-models."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from subllm.arch.spec import LinearSpec
from subllm.errors import StoreError
from subllm.extraction.commit import Parts, commit_model, run_record
from subllm.extraction.estimate import peak_memory_bytes
from subllm.extraction.plan import ExtractionPlan, value_type
from subllm.extraction.prepare import open_base
from subllm.extraction.quantiser import stored_as
from subllm.extraction.shared import DENSE, find_shared, shared_entries, write_shared
from subllm.progress import Progress
from subllm.pruning.allocation import Allocation
from subllm.sparsity.int4 import pack_int4
from subllm.sparsity.layout import LAYOUT_VERSION, Values
from subllm.sparsity.packed_file import PackedWriter
from subllm.sparsity.packing import PackedTensor, pack
from subllm.store.manifest import MethodRecord, ModelManifest
from subllm.store.names import model_name
from subllm.store.store import Store
from subllm.weights.reader import WeightReader


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


def add_dense(
    store: Store,
    base: str,
    progress: Progress,
    *,
    values: str = "int8",
    head: str = "int8",
    tag: str = "",
) -> DenseReport:
    """Pack every block of `base` without pruning, as `base-dense[-tag]`. Same store rules
    as `extract`; a model of other value types that had the name is replaced, which is said."""
    coded, head_coded = value_type(values), value_type(head)
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
    name = model_name(base, "dense", tag)
    _say_replaced(store, name, plan, progress)
    with store.lock(plan.workspace, on_wait=progress.note):
        found = store.find_plan(plan.digest)
        if found is not None:
            model, cached = found[1].model_copy(update={"name": name, "tag": tag}), True
            digest = store.put_manifest(model)
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
            blocks = workspace / "blocks.packed"
            _write_blocks(reader, coded, blocks, progress)
            digest, model = commit_model(
                store, name, tag, plan, manifest, reader, manifest.prompt,
                Parts([blocks], shared, entries, tokenizer.to_bundle()), {}, workspace,
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
                run_record(report.seconds, report.peak_memory_bytes, torch.get_num_threads()),
            )
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


def _write_blocks(reader: WeightReader, values: Values, path: Path, progress: Progress) -> None:
    spec = reader.spec
    progress.start("blocks", "packing", spec.num_layers, "blocks")
    writer = PackedWriter(path)
    for layer in range(spec.num_layers):
        for linear in spec.linears:
            name = f"{spec.block_prefix(layer)}{linear.name}.weight"
            writer.add_packed(name, _pack(reader, name, linear, values))
        reader.release()
        progress.advance("blocks")
    writer.close()
    progress.finish("blocks")


def _pack(reader: WeightReader, name: str, linear: LinearSpec, values: Values) -> PackedTensor:
    """int4 codes that the base has already are kept as they are, whatever matrix it is."""
    rows = reader.int4(name) if values == "int4" else None
    if rows is not None:
        return pack_int4(rows, None, DENSE)
    return pack(reader.read(name), None, DENSE, stored_as(linear, values))
