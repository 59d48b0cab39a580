"""A 2:4 model in the format "sparse-24-bitmask" of the package compressed-tensors.

Of a matrix `X.weight` [rows, cols] a file has `X.compressed` [rows, cols / 2], the kept weights
of each row in order, `X.bitmask` uint8 [rows, cols / 8], bit c % 8 of byte c // 8 for column c,
and `X.shape` int64 [2, 1]. What is dense stands as in any checkpoint.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from subllm.errors import PatternError
from subllm.kernels.sparsity.packing import unpack_mask, unpack_rows
from subllm.models.store.manifest import ModelManifest
from subllm.sharing.export.hf import TYPES, checkpoint, dense, safetensors_piece
from subllm.sharing.export.job import ExportJob, Piece
from subllm.sharing.export.safetensors_writer import Array, Stored, as_type
from subllm.sharing.export.weights import StoredWeights, slices

PATTERN = "2:4"
FORMAT = "sparse-24-bitmask"
NOTE = (
    "vLLM from 0.19 and compressed-tensors from 0.15 (so transformers 5) do not read 2:4 formats "
    "any more; vLLM up to 0.18 did on Hopper GPUs. For vLLM today use --format hf: served as any "
    "dense model, as fast as one"
)


def pieces(job: ExportJob) -> list[Piece]:
    """The files of format compressed-tensors. Raises PatternError unless every sparse matrix
    of the model is 2:4."""
    _check(job.manifest)
    kind, _ = TYPES[job.type]
    tensors: list[Stored] = []
    ignored = []
    for name in job.weights.shapes:
        if not job.weights.is_matrix(name) or job.weights.tensor(name).pattern != PATTERN:
            tensors.append(dense(job.weights, name, kind))
            if job.weights.is_matrix(name):
                ignored.append(name.removesuffix(".weight"))
        else:
            tensors += _sparse(job.weights, name, kind)
            job.count(FORMAT)
    job.count(kind, sum(tensor.dtype == kind for tensor in tensors) - job.tensors[FORMAT])
    job.notes.append(NOTE)
    return [*checkpoint(job, {"quantization_config": _config(job, ignored)}),
            safetensors_piece(tensors)]  # fmt: skip


def _check(manifest: ModelManifest) -> None:
    patterns = Counter(entry.pattern for entry in manifest.table().values())
    del patterns["dense"]
    others = [pattern for pattern in patterns if pattern != PATTERN]
    if patterns and not others:
        return
    has = f"matrices of pattern {', '.join(sorted(others))}" if others else "no sparse matrices"
    raise PatternError(
        f"{manifest.name} has {has}; compressed-tensors holds {PATTERN} alone: extract it with "
        f"--pattern {PATTERN}, or use --format hf, which keeps the zeros of every pattern"
    )


def _sparse(weights: StoredWeights, name: str, kind: str) -> list[Stored]:
    tensor = weights.tensor(name)
    rows, cols = tensor.shape
    stem = name.removesuffix(".weight")

    def kept() -> Iterator[Array]:
        mask = unpack_mask(tensor)
        for some in slices(tensor.shape):
            yield as_type(unpack_rows(tensor, some)[mask[some]].reshape(len(some), -1), kind)

    def bits() -> Iterator[Array]:
        yield np.packbits(unpack_mask(tensor), axis=1, bitorder="little")

    def shape() -> Iterator[Array]:
        yield np.array([[rows], [cols]], np.int64)

    return [
        Stored(f"{stem}.compressed", kind, (rows, cols // 2), kept),
        Stored(f"{stem}.bitmask", "U8", (rows, -(-cols // 8)), bits),
        Stored(f"{stem}.shape", "I64", (2, 1), shape),
    ]


def _config(job: ExportJob, ignored: list[str]) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "sparsity_config": {
            "format": FORMAT,
            "sparsity_structure": PATTERN,
            "global_sparsity": round(1 - job.manifest.density, 6),
            "targets": ["Linear"],
            "ignore": ignored,
            "registry_requires_subclass": False,
        },
    }
