"""The blob that all models of one base share: embedding, head, norms and biases."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from subllm.errors import StoreError
from subllm.kernels.sparsity.concatenate import concatenate_rows
from subllm.kernels.sparsity.layout import Values
from subllm.kernels.sparsity.packed_file import PackedWriter
from subllm.kernels.sparsity.packing import PackedTensor, pack
from subllm.kernels.sparsity.pattern import Pattern
from subllm.kernels.sparsity.screen import LEAST_ROWS, build_screen
from subllm.models.store.manifest import ModelManifest, TensorEntry
from subllm.models.store.store import Store
from subllm.models.weights.reader import WeightReader
from subllm.progress import Progress

DENSE = Pattern.parse("dense")
# Rows read and packed at a time; a multiple of 32 keeps every plane's parts aligned.
_ROWS = 8192


def find_shared(store: Store, base: str, head: str, layout: int) -> ModelManifest | None:
    """A stored model of the same base manifest whose shared blob serves a new one too.
    The blob is kept from garbage collection while the caller's lock lasts."""
    for digest in store.names().values():
        try:
            manifest = store.manifest(digest)
        except StoreError:
            continue  # another model's damage; verify tells
        if (
            isinstance(manifest, ModelManifest)
            and (manifest.base.manifest, manifest.head, manifest.layout) == (base, head, layout)
            and store.blobs.hold(manifest.blobs.shared)
        ):
            return manifest
    return None


def shared_entries(manifest: ModelManifest) -> list[TensorEntry]:
    return [entry for entry in manifest.tensors if entry.blob == "shared"]


def write_shared(
    reader: WeightReader, head: Values, path: Path, progress: Progress
) -> list[TensorEntry]:
    """Pack embedding and head (`head` is their value type; a large one gets its screening
    plane, whether or not it is the embedding too), norms and biases of `reader`
    into `path`, unless an earlier run did; returns their rows of the tensor table."""
    spec = reader.spec
    matrices = dict.fromkeys((spec.embedding_name, spec.head_name))
    vectors = [name for layer in range(spec.num_layers) for name in spec.block_vectors(layer)]
    vectors.append(spec.final_norm_name)
    if spec.norm_bias:
        vectors.append(spec.final_norm_name.removesuffix("weight") + "bias")
    entries = [_entry(name, reader.shape(name), head) for name in matrices]
    entries += [_entry(name, reader.shape(name), "f32") for name in vectors]
    if path.exists():  # complete: a writer renames
        return entries
    progress.start("shared", "packing embedding and head", len(matrices) * spec.vocab_size, "items")
    with PackedWriter(path) as writer:
        for name in matrices:
            packed = pack_in_slices(
                reader, name, head, lambda rows: progress.advance("shared", rows)
            )
            screened = name == spec.head_name and packed.shape[0] >= LEAST_ROWS
            writer.add_packed(name, packed, build_screen(packed) if screened else None)
            reader.release()
        for name in vectors:
            writer.add_vector(name, reader.read(name))
    progress.finish("shared")
    return entries


def _entry(
    name: str, shape: tuple[int, ...], values: Literal["f32", "bf16", "int8", "int4"]
) -> TensorEntry:
    return TensorEntry(
        name=name,
        shape=shape,
        blob="shared",
        pattern="dense",
        values=values,
        kept=math.prod(shape),
    )


def pack_in_slices(
    reader: WeightReader,
    name: str,
    values: Values,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> PackedTensor:
    """A large matrix packed dense by row slices, never whole in float32; `on_rows` hears how
    many more rows are done."""
    rows = reader.shape(name)[0]
    parts = []
    for start in range(0, rows, _ROWS):
        stop = min(start + _ROWS, rows)
        weights = reader.rows(name, np.arange(start, stop, dtype=np.int64))
        parts.append(pack(weights, None, DENSE, values))
        on_rows(stop - start)
    return concatenate_rows(parts)
