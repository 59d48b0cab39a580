"""Launches the kernels of `few` and `many`; arguments as `kernels.triton_ops` tells them."""

from __future__ import annotations

from typing import Any

import torch
import triton

from subllm.kernels.products.triton.few import few_kernel, finish_kernel
from subllm.kernels.products.triton.many import expand_kernel, many_kernel
from subllm.kernels.products.triton.planes import DevicePacked
from subllm.kernels.sparsity.layout import GROUP, SUB

FEW = 8
"""Tokens up to which weights are walked."""
MANY = 64
"""Tokens up to which they are expanded in registers."""
PROGRAMS = 1024
"""Programs that a product is split into, if it has so many groups of columns. The same for all
cards and numbers of tokens, so that sums have one order."""
SCRATCH = 32 << 20
"""Weights that are expanded to memory at a time."""

FEW_ROWS = 128
MANY_ROWS = 128
EXPAND_ROWS = 128
FINISH_ROWS = 256


def splits(weight: DevicePacked, rows: int) -> tuple[int, int]:
    """Parts of a sum over the columns, and how many 32 columns each has, in whole groups."""
    blocks = triton.cdiv(weight.shape[0], rows)
    wanted = min(weight.groups, triton.cdiv(PROGRAMS, blocks))
    per_split = triton.cdiv(weight.groups, wanted)
    return triton.cdiv(weight.groups, per_split), per_split * (GROUP // SUB)


def packed_matmul(
    x: torch.Tensor,
    weight: DevicePacked,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    out: torch.Tensor,
) -> None:
    tokens = x.shape[0]
    if tokens == 0:
        return
    if tokens > MANY:
        _by_slices(x, weight, bias, residual, out)
        return
    rows, cols = weight.shape
    few = tokens <= FEW
    block = FEW_ROWS if few else MANY_ROWS
    parts, per_split = splits(weight, block)
    partial = None
    if parts > 1:
        partial = torch.empty((parts, tokens, rows), dtype=torch.float32, device=x.device)
    residual_stride = 0 if residual is None else residual.stride(0)
    kernel: Any = few_kernel if few else many_kernel
    kernel[(triton.cdiv(rows, block), parts)](
        *(x, *_planes(weight), bias, residual, out, partial, tokens, rows, cols),
        *(weight.stride, x.stride(0), out.stride(0), residual_stride, per_split),
        *(weight.values, weight.form, weight.kept),
        max(triton.next_power_of_2(tokens), 1 if few else 16),
        *(block, parts),
        num_warps=4,
        enable_fp_fusion=False,  # or the number of tokens could tell which sums are fused
    )
    if partial is not None:
        finish_kernel[(triton.cdiv(rows, FINISH_ROWS), tokens)](
            *(partial, bias, residual, out, tokens, rows, out.stride(0), residual_stride),
            *(FINISH_ROWS, parts),
            num_warps=4,
            enable_fp_fusion=False,
        )


def expand(weight: DevicePacked) -> torch.Tensor:
    scratch = torch.empty(weight.shape[::-1], dtype=torch.float32, device=weight.device)
    _expand(weight, 0, weight.shape[0], scratch)
    return scratch.T.contiguous()


def _by_slices(
    x: torch.Tensor,
    weight: DevicePacked,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    out: torch.Tensor,
) -> None:
    rows, cols = weight.shape
    step = max(EXPAND_ROWS, SCRATCH // cols // EXPAND_ROWS * EXPAND_ROWS)
    scratch = torch.empty((cols, min(step, rows)), dtype=x.dtype, device=x.device)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        _expand(weight, start, stop, scratch)
        product = torch.matmul(x, scratch[:, : stop - start])
        if bias is not None:
            product = product + bias[start:stop]
        if residual is not None:
            product = product + residual[:, start:stop]
        out[:, start:stop] = product


def _expand(weight: DevicePacked, start: int, stop: int, scratch: torch.Tensor) -> None:
    cols = weight.shape[1]
    expand_kernel[(triton.cdiv(stop - start, EXPAND_ROWS), triton.cdiv(cols, SUB))](
        *(*_planes(weight), scratch, start, stop, cols, weight.stride, scratch.stride(0)),
        *(weight.values, weight.form, weight.kept, EXPAND_ROWS),
        num_warps=4,
        enable_fp_fusion=False,
    )


def _planes(weight: DevicePacked) -> tuple[torch.Tensor | None, ...]:
    return (weight.codes, weight.mask, weight.scales, weight.subscales, weight.starts)
