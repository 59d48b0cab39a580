"""Products in plain numpy: slow, short, and the truth that the kernels are held to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from subllm.kernels.sparsity.layout import GROUP, SUB, SUPER
from subllm.kernels.sparsity.packing import Floats, PackedTensor
from subllm.kernels.sparsity.reference import (
    codes_reference,
    from_bf16,
    row_subscales,
    to_bf16,
    unpack_reference,
)

SMALLEST = np.float32(1e-30)
"""A group of activations that are all smaller counts as zeros."""


def quantize_input(x: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """x float32 [T, C], finite -> codes int8 [T, groups, 128] (zeros beyond C) and scales
    float32 [T, groups], symmetric by the largest magnitude, nearest even."""
    tokens, cols = x.shape
    groups = -(-cols // GROUP)
    padded = np.zeros((tokens, groups * GROUP), np.float32)
    padded[:, :cols] = x
    grouped = padded.reshape(tokens, groups, GROUP)
    largest = np.abs(grouped).max(axis=2)
    zero = largest < SMALLEST
    inverse = np.where(zero, np.float32(0), np.float32(127) / np.where(zero, 1, largest))
    codes = np.rint(grouped * inverse[:, :, None].astype(np.float32)).astype(np.int8)
    return codes, np.where(zero, np.float32(0), largest / np.float32(127)).astype(np.float32)


def multiply_reference(packed: PackedTensor, x: Floats, bias: Floats | None = None) -> Floats:
    """What `ops.multiply` gives: bit for bit for int8 and int4 weights; for bf16 weights the
    exact product of the rounded activations, rounded once."""
    if packed.values == "bf16":
        rounded = from_bf16(to_bf16(x)).astype(np.float64)
        return multiply_exact(packed, rounded, bias)
    tokens, scales = quantize_input(x)
    parts = (_int8_part if packed.values == "int8" else _int4_part)(packed, tokens.astype(np.int64))
    total = np.zeros((x.shape[0], packed.shape[0]), np.float32)
    for group, terms in enumerate(parts):
        own = scales[:, group][:, None]
        part = np.zeros_like(total)
        for i, (sums, scale) in enumerate(terms):
            term = sums.astype(np.float32) * (scale[None, :] * own)
            part = term if i == 0 else part - term
        total = part if group == 0 else total + part
    return total if bias is None else total + bias


_Terms = list[tuple[npt.NDArray[np.int64], Floats]]


def _codes(packed: PackedTensor) -> npt.NDArray[np.int64]:
    """int64 [R, groups, 128], zeros where dropped or beyond C."""
    rows, cols = packed.shape
    groups = packed.geometry.col_groups
    codes = np.zeros((rows, groups * GROUP), np.int64)
    codes[:, :cols] = codes_reference(packed)
    return codes.reshape(rows, groups, GROUP)


def _int8_part(packed: PackedTensor, tokens: npt.NDArray[np.int64]) -> Iterator[_Terms]:
    assert packed.scales is not None
    codes = _codes(packed)
    for group in range(codes.shape[1]):
        scale = packed.scales[:, group].reshape(-1)[: packed.shape[0]].astype(np.float32)
        yield [(tokens[:, group] @ codes[:, group].T, scale)]


def _int4_part(packed: PackedTensor, tokens: npt.NDArray[np.int64]) -> Iterator[_Terms]:
    rows, geometry, codes = packed.shape[0], packed.geometry, _codes(packed)
    assert packed.scales is not None
    subscales = row_subscales(packed).astype(np.int64)
    for group in range(codes.shape[1]):
        by_sub = tokens[:, group].reshape(-1, GROUP // SUB, SUB)
        weights = codes[:, group].reshape(-1, GROUP // SUB, SUB)
        products = np.einsum("tjc,rjc->trj", by_sub, weights)
        terms = [np.einsum("trj,rj->tr", products, subscales[:, group, 0])]
        if geometry.terms == 2:
            terms.append(np.einsum("tj,rj->tr", by_sub.sum(axis=2), subscales[:, group, 1]))
        scales = packed.scales[:, group * GROUP // SUPER].transpose(0, 2, 1)
        by_row = scales.reshape(-1, geometry.terms)[:rows].astype(np.float32)
        yield [(terms[i], by_row[:, i]) for i in range(geometry.terms)]


def multiply_exact(
    packed: PackedTensor, x: npt.NDArray[np.floating], bias: Floats | None = None
) -> Floats:
    """x [T, C] @ W.T + bias in double, rounded to float32 [T, R]."""
    out = x.astype(np.float64) @ unpack_reference(packed).astype(np.float64).T
    return (out if bias is None else out + bias).astype(np.float32)
