"""A packed file with a tensor of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from subllm.kernels.sparsity.mask import select
from subllm.kernels.sparsity.packed_file import PackedReader, PackedWriter
from subllm.kernels.sparsity.packing import PackedTensor, pack, unpack
from subllm.kernels.sparsity.pattern import Pattern

KINDS = {
    "model.layers.0.mlp.up_proj.weight": ("8:16", "int8", (9, 576)),
    "b": ("50%", "int4", (17, 70)),
    "c": ("dense", "bf16", (3, 5)),
    "d": ("2:4", "bf16", (8, 64)),
    "e": ("62.5%", "bf16", (1, 1)),
}


def tensor(pattern: str, values: str, shape: tuple[int, int]) -> PackedTensor:
    weights = np.random.default_rng(shape[1]).standard_normal(shape).astype(np.float32)
    parsed = Pattern.parse(pattern)
    mask = None if pattern == "dense" else select(np.abs(weights), parsed)
    return pack(weights, mask, pattern, values)


TENSORS = {name: tensor(*kind) for name, kind in KINDS.items()}
VECTORS = {
    "model.norm.weight": np.arange(7, dtype=np.float32),
    "ø": np.array([-1.5], np.float32),
    "empty": np.zeros(0, np.float32),
}


def write(path: Path, names: Any = KINDS, vectors: Any = VECTORS, **options: Any) -> Path:
    with PackedWriter(path, **options) as writer:
        for name in names:
            writer.add_packed(name, TENSORS[name])
        for name in vectors:
            writer.add_vector(name, VECTORS[name])
    return path


def assert_holds_everything(path: Path) -> None:
    with PackedReader(path) as reader:
        assert reader.names() == (*KINDS, *VECTORS)
        reader.verify()
        for name, want in TENSORS.items():
            have = reader.tensor(name)
            assert (have.shape, have.pattern, have.values) == (
                want.shape, want.pattern, want.values,
            )  # fmt: skip
            for plane in ("mask", "data", "scales", "offsets"):
                a, b = getattr(have, plane), getattr(want, plane)
                assert (a is None) == (b is None)
                if b is not None:
                    assert a.shape == b.shape and a.dtype == b.dtype
                    assert a.tobytes() == b.tobytes()
                    assert a.ctypes.data % 64 == 0 and not a.flags.writeable
            assert unpack(have).tobytes() == unpack(want).tobytes()
        for name, vector in VECTORS.items():
            assert np.array_equal(reader.vector(name), vector)
