"""Packed matrices and activations made of random numbers."""

from __future__ import annotations

import os

import numpy as np
import torch

from subllm.kernels.sparsity.mask import select
from subllm.kernels.sparsity.packing import Floats, PackedTensor, pack
from subllm.kernels.sparsity.pattern import Pattern

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"


def packed_sample(rows: int, cols: int, pattern: str, values: str, seed: int = 0) -> PackedTensor:
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((rows, cols)).astype(np.float32)
    parsed = Pattern.parse(pattern)
    mask = None
    if parsed.kind != "dense":
        mask = select(rng.random((rows, cols), np.float32), parsed)
    return pack(weights, mask, parsed, values)


def activations(count: int, cols: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).standard_normal((count, cols)).astype(np.float32)
