"""One launch of each kernel that a decoder of the 0.5B takes, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from subllm.kernels.products.triton import compiled as ops
from subllm.kernels.products.triton.operands import KvPlanes, Rotation, Scores, SeenKeys
from subllm.kernels.products.triton.planes import DevicePacked
from subllm.kernels.sparsity.mask import select
from subllm.kernels.sparsity.packing import pack
from subllm.kernels.sparsity.pattern import Pattern

ROWS, COLS = 896, 512  # 4 groups of columns: sums are split


def random_packed(rows: int, cols: int, pattern: str, values: str) -> DevicePacked:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((rows, cols)).astype(np.float32)
    parsed = Pattern.parse(pattern)
    mask = None if parsed.kind == "dense" else select(np.abs(weights), parsed)
    return DevicePacked.from_packed(pack(weights, mask, parsed, values), "cpu")


def specimens() -> dict[str, Callable[[], Any]]:
    """What to call for a launch; the first kernel of it is the one that is meant."""
    found: dict[str, Callable[[], Any]] = {}
    for pattern, values in (
        ("8:16", "int4"), ("11:16", "int4"), ("dense", "int4"), ("8:16", "int8"),
        ("dense", "int8"), ("8:16", "bf16"), ("dense", "bf16"), ("50%", "int8"), ("16:32", "int4"),
    ):  # fmt: skip
        weight = random_packed(ROWS, COLS, pattern, values)
        main = (pattern, values) in (("8:16", "int4"), ("11:16", "int4"), ("dense", "int4"))
        for tokens in (1, 8, 16, 64, 65) if main else (1, 16):
            x = torch.zeros((tokens, COLS), dtype=torch.bfloat16)
            out = torch.zeros((tokens, ROWS))
            name = f"{pattern} {values}, " + (f"{tokens} tokens" if tokens <= 64 else "expand")
            found[name.replace(" 1 tokens", " 1 token")] = lambda x=x, weight=weight, out=out: (
                ops.packed_matmul(x, weight, None, None, out)
            )
    stream, normed = torch.zeros((1, 896)), torch.zeros((1, 896), dtype=torch.bfloat16)
    found["norm with residual"] = lambda: ops.norm(
        stream, torch.zeros(896), None, 1e-6, stream, normed
    )
    inner, active = (torch.zeros((1, n), dtype=torch.bfloat16) for n in (2 * 4864, 4864))
    found["gated silu"] = lambda: ops.activate(inner, "silu", True, active)
    qkv = torch.zeros((1, 18, 64), dtype=torch.bfloat16)
    cache = torch.zeros((4, 64, 2, 64), dtype=torch.bfloat16)
    index, angles = torch.zeros(1, dtype=torch.int32), torch.zeros((64, 32))
    found["rotate and store"] = lambda: ops.rotate_and_store(
        qkv, index, index, Rotation(angles, angles), KvPlanes(cache, cache)
    )
    tables = torch.zeros((1, 64), dtype=torch.int32)
    found["paged attention"] = lambda: ops.paged_attention(
        *(qkv[:, :14], KvPlanes(cache, cache), SeenKeys(tables, index), Scores(0.125)),
        qkv[:, :14],
    )
    found["greedy"] = lambda: ops.greedy(torch.zeros((1, 4096)), index)
    return found
