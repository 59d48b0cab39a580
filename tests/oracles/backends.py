"""Every backend on the same packed model, for tests that all of them must pass."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from oracles.packed_models import PackedMemory
from subllm.engine.backends.cuda import CudaBackend
from subllm.engine.backends.native import NativeBackend
from subllm.engine.backends.torch import TorchBackend
from subllm.kernels.sparsity.packing import unpack


class Loadable(PackedMemory):
    """What every backend can load from, of a packed model in memory."""

    def __init__(self, packed: PackedMemory, cache_key: str | None = None) -> None:
        self.spec, self.vectors, self.packed = packed.spec, packed.vectors, packed.packed
        self._key = cache_key

    def rows(self, name: str, start: int, stop: int) -> Any:
        return unpack(self.packed[name])[start:stop]

    def cache_key(self, name: str) -> str | None:
        return self._key and f"{self._key}/{name}"


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="has no CUDA device"),
]
_OTHERS = [] if INTERPRETED else ["native", "torch"]
KINDS = [
    *_OTHERS,
    # The captured step, run as it is: with TRITON_INTERPRET=1 on Triton's kernels, else on those
    # of plain torch.
    pytest.param("cpu", id="interpreter" if INTERPRETED else "static"),
    pytest.param("cuda", marks=_GPU),
]


def exact(kind: str, packed: PackedMemory) -> Any:
    """In float32, as far as the kind has it."""
    if kind == "native":
        return NativeBackend(packed, kv="float32", exact=True, threads=1)
    if kind == "torch":
        return TorchBackend(Loadable(packed), dtype="float32", threads=1)
    return CudaBackend(Loadable(packed), device=kind, dtype="float32", threads=1)
