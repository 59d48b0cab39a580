"""Norms, activations and the greedy choice, row by row."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

BLOCK = 4096
"""Elements of a row that a program holds at a time."""


@triton.jit
def norm_kernel(
    x, weight, bias, add, out, size, x_stride, add_stride, out_stride, eps,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """RMSNorm, or LayerNorm where there is a bias, of a row of x, `add` added to it before."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, size, BLOCK):
        inside = start + lane < size
        value = tl.load(x + row * x_stride + start + lane, mask=inside, other=0).to(tl.float32)
        if add is not None:
            more = tl.load(add + row * add_stride + start + lane, mask=inside, other=0)
            value += more.to(tl.float32)
            tl.store(x + row * x_stride + start + lane, value, mask=inside)
        total += value if bias is not None else value * value
    if add is not None:
        tl.debug_barrier()  # what is read again was written by other threads, perhaps
    mean = 0.0
    if bias is not None:
        mean = tl.sum(total) / size
        total = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, size, BLOCK):
            inside = start + lane < size
            value = tl.load(x + row * x_stride + start + lane, mask=inside, other=0)
            apart = tl.where(inside, value.to(tl.float32) - mean, 0.0)
            total += apart * apart
    scale = 1.0 / tl.sqrt(tl.sum(total) / size + eps)
    for start in range(0, size, BLOCK):
        inside = start + lane < size
        value = tl.load(x + row * x_stride + start + lane, mask=inside, other=0).to(tl.float32)
        normed = (value - mean) * scale * tl.load(weight + start + lane, mask=inside, other=0)
        if bias is not None:
            normed += tl.load(bias + start + lane, mask=inside, other=0)
        tl.store(out + row * out_stride + start + lane, normed, mask=inside)


@triton.jit
def tanh(x):
    """By an exponential that does not overflow."""
    small = tl.exp(-2 * tl.abs(x))
    size = (1 - small) / (1 + small)
    return tl.where(x < 0, -size, size)


@triton.jit
def activate_kernel(
    x, out, size, x_stride, out_stride,
    KIND: tl.constexpr, GATED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Program (i, t): BLOCK of row t."""
    row = tl.program_id(1).to(tl.int64)
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = lane < size
    gate = tl.load(x + row * x_stride + lane, mask=inside, other=0).to(tl.float32)
    if KIND == "silu":
        active = gate / (1 + tl.exp(-gate))
    elif KIND == "gelu":
        active = 0.5 * gate * (1 + tl.erf(gate * 0.7071067811865476))
    else:
        active = (
            0.5 * gate * (1 + tanh(0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)))
        )
    if GATED:
        active *= tl.load(x + row * x_stride + size + lane, mask=inside, other=0).to(tl.float32)
    tl.store(out + row * out_stride + lane, active, mask=inside)


@triton.jit
def greedy_kernel(logits, out, vocab, stride, BLOCK: tl.constexpr):
    """The largest of a row, the lowest of equal ones; each lane looks at every BLOCK-th token."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    best = tl.full((BLOCK,), float("-inf"), tl.float32)
    where = lane
    for start in range(0, vocab, BLOCK):
        inside = start + lane < vocab
        value = tl.load(logits + row * stride + start + lane, mask=inside, other=float("-inf"))
        better = value.to(tl.float32) > best  # never true of NaN
        best = tl.where(better, value.to(tl.float32), best)
        where = tl.where(better, start + lane, where)
    peak = tl.max(best, 0)
    first = tl.min(tl.where(best == peak, where, vocab), 0)
    finite = (peak > float("-inf")) & (peak < float("inf"))
    tl.store(out + row, tl.where(finite, first, -1))


def norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    eps: float,
    add: torch.Tensor | None,
    out: torch.Tensor,
) -> None:
    size = x.shape[1]
    add_stride = 0 if add is None else add.stride(0)
    _launch(
        *(norm_kernel, (x.shape[0],), x, weight, bias, add, out),
        *(size, x.stride(0), add_stride, out.stride(0), eps, _block(size)),
    )


def activate(x: torch.Tensor, kind: str, gated: bool, out: torch.Tensor) -> None:
    rows, size = out.shape
    block = min(_block(size), 1024)  # of which there is no sum
    _launch(
        *(activate_kernel, (triton.cdiv(size, block), rows), x, out),
        *(size, x.stride(0), out.stride(0), kind, gated, block),
    )


def greedy(logits: torch.Tensor, out: torch.Tensor) -> None:
    vocab = logits.shape[1]
    _launch(
        *(greedy_kernel, (logits.shape[0],), logits, out),
        *(vocab, logits.stride(0), _block(vocab)),
    )


def _block(size: int) -> int:
    return min(BLOCK, max(int(triton.next_power_of_2(size)), 16))


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: object) -> None:
    if 0 not in grid:
        kernel[grid](*arguments, num_warps=4, enable_fp_fusion=True)
