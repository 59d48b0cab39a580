"""All operations by Triton's kernels; importing this imports Triton."""

from __future__ import annotations

from subllm.kernels.products.triton.attention import paged_attention, rotate_and_store
from subllm.kernels.products.triton.product import expand, packed_matmul
from subllm.kernels.products.triton.rows import activate, greedy, norm

__all__ = [
    "activate",
    "expand",
    "greedy",
    "norm",
    "packed_matmul",
    "paged_attention",
    "rotate_and_store",
]
