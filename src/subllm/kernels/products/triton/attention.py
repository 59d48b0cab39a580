"""Rotation of queries and keys on their way to the paged cache, and attention over it."""

from __future__ import annotations

from typing import Any

import torch
import triton

from subllm.kernels.products.triton.attention_kernels import (
    attention_kernel,
    gather_kernel,
    rotate_kernel,
)
from subllm.kernels.products.triton.operands import KvPlanes, Rotation, Scores, SeenKeys

PART = 256
"""Keys of a program, so that long sequences have many of them; a multiple of any block size that
is a power of two up to it."""
HELD = 8192
"""Products of queries and keys that a program holds at a time."""


def rotate_and_store(
    qkv: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    rotation: Rotation,
    kv: KvPlanes,
) -> None:
    kernel: Any = rotate_kernel
    tokens, all_heads, dim = qkv.shape
    kv_heads = kv.keys.shape[2]
    if tokens == 0:
        return
    kernel[(tokens, all_heads)](
        *(qkv, positions, rotation.cos, rotation.sin, slots, kv.keys, kv.values, rotation.qk_norm),
        *(all_heads - 2 * kv_heads, kv_heads, dim // 2, qkv.stride(0), qkv.stride(1)),
        *(kv.keys.stride(1), kv.keys.stride(2), rotation.eps, triton.next_power_of_2(dim // 2)),
        num_warps=1,
        enable_fp_fusion=True,
    )


def paged_attention(
    queries: torch.Tensor,
    kv: KvPlanes,
    seen: SeenKeys,
    scores: Scores,
    out: torch.Tensor,
) -> None:
    keys, tables, lengths = kv.keys, seen.tables, seen.lengths
    rows, heads, dim = queries.shape
    kv_heads, block = keys.shape[2], keys.shape[1]
    parts = triton.cdiv(tables.shape[1] * block, PART)
    if rows == 0 or parts == 0:
        out.zero_()
        return
    own = (rows, heads, parts)
    partial = torch.empty((*own, dim), dtype=torch.float32, device=queries.device)
    peaks, totals = (torch.empty(own, dtype=torch.float32, device=queries.device) for _ in "pt")
    kernel: Any = attention_kernel
    wide, members = (triton.next_power_of_2(n) for n in (dim, heads // kv_heads))
    step = min(max(HELD // (wide * members), 1), 32)
    kernel[(rows, kv_heads, parts)](
        *(queries, keys, kv.values, tables, lengths, partial, peaks, totals),
        *(heads // kv_heads, dim, block, scores.scale, scores.window, scores.softcap),
        *(queries.stride(0), queries.stride(1), tables.stride(0)),
        *(keys.stride(1), keys.stride(2), parts, heads),
        *(members, wide, PART, step),
        num_warps=4,
        enable_fp_fusion=True,
    )
    gather: Any = gather_kernel
    gather[(rows, heads)](
        *(partial, peaks, totals, lengths, out, heads, dim, parts),
        *(out.stride(0), out.stride(1), wide, PART),
        num_warps=1,
        enable_fp_fusion=True,
    )
