"""From finished parts to a named model in the store: all of it, or nothing."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from subllm.kernels.sparsity.layout import LAYOUT_VERSION
from subllm.kernels.sparsity.packed_file import PackedReader, concat
from subllm.making.extraction.plan import ExtractionPlan
from subllm.models.store.manifest import (
    BaseManifest,
    BaseRef,
    MadeBy,
    ModelBlobs,
    ModelManifest,
    Perplexity,
    RecoveryRecord,
    RunRecord,
    TensorEntry,
)
from subllm.models.store.store import Store
from subllm.models.store.tokenizers import open_tokenizer
from subllm.models.store.unrounded import keep_unrounded
from subllm.models.weights.reader import WeightReader


@dataclass(frozen=True)
class Parts:
    """Packed files of one model, not in the store yet. shared is a file, or the digest
    of a blob that the store holds already; unrounded: what recovered values were rounded from,
    where that is to be kept."""

    blocks: Sequence[Path]
    shared: Path | str
    shared_entries: Sequence[TensorEntry]
    tokenizer: bytes
    unrounded: Path | None = None


@dataclass(frozen=True)
class NewModel:
    """What a model is called, and what it is made of. reader: of the base's weights."""

    name: str
    tag: str
    plan: ExtractionPlan
    base: BaseManifest
    reader: WeightReader


def commit_model(
    store: Store,
    new: NewModel,
    parts: Parts,
    perplexity: dict[str, Perplexity],
    workspace: Path,
    recovery: RecoveryRecord | None = None,
) -> tuple[str, ModelManifest]:
    """Store blobs and manifest and point its name at it; returns the manifest's digest.

    The name moves last, so that a crash leaves either the old model or the new one.
    """
    plan, base, reader = new.plan, new.base, new.reader
    own_file = workspace / "own.packed"
    concat(list(parts.blocks), own_file)
    own_entries = block_entries(own_file)
    own = store.blobs.adopt(own_file)
    shared = store.blobs.adopt(parts.shared) if isinstance(parts.shared, Path) else parts.shared
    tokenizer = store.blobs.put(parts.tokenizer)
    total = reader.spec.block_params() * reader.spec.num_layers
    manifest = ModelManifest(
        layout=LAYOUT_VERSION,
        name=new.name,
        language=plan.language,
        tag=new.tag,
        base=BaseRef(
            name=base.name,
            manifest=plan.base,
            source=base.source,
            revision=base.revision,
            licence=base.licence,
        ),
        plan=plan.digest,
        method=plan.method,
        pattern=str(plan.allocation),
        values=plan.values,
        head=plan.head,
        calibration=plan.calibration,
        arch=reader.spec.to_dict(),
        prompt=base.prompt,
        tensors=(*own_entries, *parts.shared_entries),
        blobs=ModelBlobs(own=own, shared=shared, tokenizer=tokenizer),
        perplexity=perplexity,
        recovery=recovery,
        density=float(f"{sum(e.kept for e in own_entries if e.values != 'f32') / total:.6g}"),
    )
    digest = store.put_manifest(manifest)
    if parts.unrounded is not None:
        keep_unrounded(store, digest, parts.unrounded)
    store.set_ref(new.name, digest)
    open_tokenizer(store, manifest)  # now, so that the first answer need not make its cache
    return digest, manifest


def block_entries(packed: Path) -> list[TensorEntry]:
    """Tensor-table rows of a packed file of block matrices, and of vectors that learned."""
    with PackedReader(packed) as reader:
        entries = []
        for name in reader.table:
            tensor = reader.tensor(name)
            entries.append(
                TensorEntry(
                    name=name,
                    shape=tensor.shape,
                    blob="own",
                    pattern=tensor.pattern,
                    values=tensor.values,
                    kept=tensor.kept,
                )
            )
        for name in reader.vectors:
            size = reader.vector(name).size
            entries.append(
                TensorEntry(
                    name=name, shape=(size,), blob="own", pattern="dense", values="f32", kept=size
                )
            )
        return entries


def keep_made(store: Store, digest: str, made: MadeBy | None, origin: str) -> None:
    """Tell how a model was asked for that was in the store already; `origin` is the manifest
    that the name referred to whose sidecar is its own."""
    record = store.run_record(digest) or store.run_record(origin)
    if made is not None and record is not None:
        store.put_run_record(digest, record.model_copy(update={"made": made}))


def run_record(
    seconds: float, peak_memory_bytes: int, threads: int, compute: str = ""
) -> RunRecord:
    return RunRecord(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        peak_memory_bytes=peak_memory_bytes,
        host=platform.node(),
        threads=threads,
        compute=compute,
        versions={
            package: version(package) for package in ("subllm", "torch", "transformers", "numpy")
        },
    )
