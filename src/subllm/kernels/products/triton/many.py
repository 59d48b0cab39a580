"""Products with 9 to 64 tokens (weights expanded in registers for tensor cores), and weights
expanded to memory, for products with more."""

from __future__ import annotations

import triton
import triton.language as tl

from subllm.kernels.products.triton.weights import steps, tile


@triton.jit
def many_kernel(
    x, codes, mask, scales, subscales, starts, bias, residual, out, partial,
    tokens, rows, cols, stride, x_stride, out_stride, residual_stride, per_split,
    VALUES: tl.constexpr, FORM: tl.constexpr, KEPT: tl.constexpr,
    TOKENS: tl.constexpr, ROWS: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """As `few_kernel`, for TOKENS 16 or more. Codes are exact in any float type, so that only
    activations are rounded, where x is."""
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
        weights = tile(
            codes, mask, starts, j, row[None, :], inside[None, :], stride, VALUES, FORM, KEPT
        )
        part = tl.dot(own, weights.to(own.dtype), input_precision="ieee")
        if VALUES == "bf16":
            total += part
        else:
            TERMS: tl.constexpr = 2 if FORM == "dense" else 1
            step = steps(scales, subscales, j, 0, row, inside, stride, VALUES, TERMS)
            total += part * step[None, :]
            if VALUES == "int4" and FORM == "dense":
                least = steps(scales, subscales, j, 1, row, inside, stride, VALUES, TERMS)
                total -= tl.sum(own.to(tl.float32), 1)[:, None] * least[None, :]
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
def expand_kernel(
    codes, mask, scales, subscales, starts, out, first_row, rows, cols, stride, out_stride,
    VALUES: tl.constexpr, FORM: tl.constexpr, KEPT: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Program (i, j): columns 32 * j and on of ROWS rows from `first_row` on, up to `rows`, to
    out [cols, out_stride], the first row at 0."""
    lane = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[None, :]
    row = first_row + lane
    inside = row < rows
    j = tl.program_id(1)
    weights = tile(codes, mask, starts, j, row, inside, stride, VALUES, FORM, KEPT)
    if VALUES != "bf16":
        TERMS: tl.constexpr = 2 if FORM == "dense" else 1
        step = steps(scales, subscales, j, 0, row, inside, stride, VALUES, TERMS)
        weights = weights * step
        if VALUES == "int4" and FORM == "dense":
            weights -= steps(scales, subscales, j, 1, row, inside, stride, VALUES, TERMS)
        weights += 0.0  # no -0
    column = j * 32 + tl.arange(0, 32)[:, None]
    tl.store(out + column.to(tl.int64) * out_stride + lane, weights, mask=inside & (column < cols))
