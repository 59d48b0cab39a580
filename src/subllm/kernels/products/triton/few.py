"""Products of packed matrices with 1 to 8 tokens, on ordinary cores."""

from __future__ import annotations

import triton
import triton.language as tl

from subllm.kernels.products.triton.weights import steps, tile


@triton.jit
def few_kernel(
    x, codes, mask, scales, subscales, starts, bias, residual, out, partial,
    tokens, rows, cols, stride, x_stride, out_stride, residual_stride, per_split,
    VALUES: tl.constexpr, FORM: tl.constexpr, KEPT: tl.constexpr,
    TOKENS: tl.constexpr, ROWS: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Program (i, s): ROWS rows, columns 32 * per_split * s and on. With several splits the sums
    go to `partial`, float32 [SPLITS, tokens, rows]."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    token = tl.arange(0, TOKENS)
    place = tl.arange(0, 32)
    first = tl.program_id(1) * per_split
    last = tl.minimum(first + per_split, (cols + 31) // 32)
    total = tl.zeros((TOKENS, ROWS), tl.float32)
    for turn in range(last - first):
        j = first + turn  # a scalar of Triton's, in its interpreter too
        at = j * 32 + place
        taken = (token < tokens)[:, None] & (at < cols)[None, :]
        own = tl.load(x + token[:, None] * x_stride + at[None, :], mask=taken, other=0)
        own = own.to(tl.float32)
        weights = tile(
            codes, mask, starts, j, row[None, :], inside[None, :], stride, VALUES, FORM, KEPT
        )
        part = tl.sum(own[:, :, None] * weights[None, :, :], 1)
        if VALUES == "bf16":
            total += part
        else:
            TERMS: tl.constexpr = 2 if FORM == "dense" else 1
            step = steps(scales, subscales, j, 0, row, inside, stride, VALUES, TERMS)
            total += part * step[None, :]
            if VALUES == "int4" and FORM == "dense":
                least = steps(scales, subscales, j, 1, row, inside, stride, VALUES, TERMS)
                total -= tl.sum(own, 1)[:, None] * least[None, :]
    written = (token < tokens)[:, None] & inside[None, :]
    if SPLITS > 1:
        lane = tl.program_id(1) * tokens + token
        tl.store(partial + lane[:, None] * rows + row[None, :], total, mask=written)
    else:
        if bias is not None:
            total += tl.load(bias + row, mask=inside, other=0).to(tl.float32)[None, :]
        if residual is not None:
            at = token[:, None] * residual_stride + row[None, :]
            total += tl.load(residual + at, mask=written, other=0).to(tl.float32)
        tl.store(out + token[:, None] * out_stride + row[None, :], total, mask=written)


@triton.jit
def finish_kernel(
    partial, bias, residual, out, tokens, rows, out_stride, residual_stride,
    ROWS: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Program (i, t): sums of token t and ROWS rows, split after split."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    token = tl.program_id(1)
    total = tl.zeros((ROWS,), tl.float32)
    for split in range(SPLITS):
        total += tl.load(partial + (split * tokens + token) * rows + row, mask=inside, other=0)
    if bias is not None:
        total += tl.load(bias + row, mask=inside, other=0).to(tl.float32)
    if residual is not None:
        at = residual + token * residual_stride + row
        total += tl.load(at, mask=inside, other=0).to(tl.float32)
    tl.store(out + token * out_stride + row, total, mask=inside)
