"""Products in plain numpy: slow, short, and the truth that the kernels are held to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from subllm.sparsity.layout import GROUP
from subllm.sparsity.packing import Floats, PackedTensor
from subllm.sparsity.reference import from_bf16, to_bf16, unpack_reference

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


def weight_codes(packed: PackedTensor) -> tuple[npt.NDArray[np.int64], Floats]:
    """Codes int64 [R, groups, 128], zeros where dropped or beyond C, and scales float32
    [R, groups] of int8 or int4 weights."""
    assert packed.scales is not None
    rows, cols = packed.shape
    groups = packed.scales.shape[1]
    ones = np.ones_like(packed.scales)
    plain = PackedTensor(
        packed.shape, packed.pattern, packed.values, packed.mask, packed.data, ones, packed.offsets
    )
    codes = np.zeros((rows, groups * GROUP), np.int64)
    codes[:, :cols] = unpack_reference(plain)
    by_row = packed.scales.transpose(0, 2, 1).reshape(-1, groups)[:rows]
    return codes.reshape(rows, groups, GROUP), by_row.astype(np.float32)


def multiply_reference(packed: PackedTensor, x: Floats, bias: Floats | None = None) -> Floats:
    """What `ops.multiply` gives: bit for bit for int8 and int4 weights; for bf16 weights the
    exact product of the rounded activations, rounded once."""
    if packed.values == "bf16":
        rounded = from_bf16(to_bf16(x)).astype(np.float64)
        return multiply_exact(packed, rounded, bias)
    codes, scales = quantize_input(x)
    weights, weight_scales = weight_codes(packed)
    total = np.zeros((x.shape[0], packed.shape[0]), np.float32)
    for group in range(scales.shape[1]):
        product = codes[:, group].astype(np.int64) @ weights[:, group].T
        scale = weight_scales[:, group][None, :] * scales[:, group][:, None]
        part = product.astype(np.float32) * scale
        total = part if group == 0 else total + part
    return total if bias is None else total + bias


def multiply_exact(
    packed: PackedTensor, x: npt.NDArray[np.floating], bias: Floats | None = None
) -> Floats:
    """x [T, C] @ W.T + bias in double, rounded to float32 [T, R]."""
    out = x.astype(np.float64) @ unpack_reference(packed).astype(np.float64).T
    return (out if bias is None else out + bias).astype(np.float32)
