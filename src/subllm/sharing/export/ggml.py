"""Packed matrices as blocks of ggml, with the codes that they have wherever a type fits them.

A row of every type stands alone, so rows may come in pieces and in another order.

    Q8_0  32 weights: binary16 d, 32 int8 q: d * q. Our int8 as it is (a scale is of 128 columns).
    Q4_0  32 weights: binary16 d, nibbles q: d * (q - 8). Our int4 with a mask; scale * subscale
          is rounded to binary16, dropped weights have q = 8.
    Q4_1  32 weights: binary16 d and m: d * q + m. Our int4 without a mask, both rounded.
    Q4_K  256 weights: our int4 without a mask as it is, where its parts fit 6 bits, which they do
          where they came from such a file.
    BF16, F16  one by one.
"""

from __future__ import annotations

import gguf
import numpy as np
import numpy.typing as npt

from subllm.kernels.sparsity.int4 import Int4Rows, scales_and_parts, steps
from subllm.kernels.sparsity.layout import GROUP, SUB
from subllm.kernels.sparsity.packing import PackedTensor, unpack_rows
from subllm.models.weights.q4_k import COLS, LARGEST_PART, q4_k_of_int4
from subllm.sharing.export.safetensors_writer import as_type
from subllm.sharing.export.weights import Rows

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

BLOCK = 32
# GGML type -> (weights, bytes) of a block.
BLOCKS = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q4_0": (BLOCK, 18),
    "Q4_1": (BLOCK, 20),
    "Q8_0": (BLOCK, 34),
    "Q4_K": (COLS, 144),
}


def kind_for(tensor: PackedTensor, wanted: str) -> str:
    """The GGML type of a matrix. wanted: "auto" (the smallest that keeps its codes), "q8_0" or
    "f16"; a width that the type cannot have takes F16."""
    if wanted == "f16":
        return "F16"
    if wanted == "auto" and tensor.values == "bf16":
        return "BF16"
    if tensor.shape[1] % BLOCK:
        return "F16"
    if wanted == "q8_0" or tensor.values == "int8":
        return "Q8_0"
    if tensor.mask is not None:
        return "Q4_0"
    assert tensor.subscales is not None
    fits = tensor.shape[1] % COLS == 0 and tensor.subscales.max(initial=0) <= LARGEST_PART
    return "Q4_K" if fits else "Q4_1"


class Encoder:
    """One matrix in one type; `rows` gives the bytes of some of its rows."""

    def __init__(self, tensor: PackedTensor, kind: str) -> None:
        self._tensor = tensor
        self._kind = kind
        self._steps: Floats | None = None  # [terms, R, groups of 32]
        if kind in ("F16", "BF16"):
            return
        if tensor.values == "int4":
            self._steps = steps(tensor)
        elif tensor.values == "int8":
            self._steps = _int8_steps(tensor)
        if kind == "Q4_K":
            self._scales, self._parts = scales_and_parts(tensor)

    def rows(self, rows: Rows) -> Bytes:
        """uint8 [len(rows), bytes of a row]."""
        values = unpack_rows(self._tensor, rows)
        if self._kind in ("F16", "BF16"):
            return np.ascontiguousarray(as_type(values, self._kind)).view(np.uint8)
        if self._steps is None or (self._kind == "Q8_0" and len(self._steps) == 2):
            return _q8_0_of(values)
        blocks = values.reshape(len(rows), -1, BLOCK)
        codes = _codes(blocks, self._steps[:, rows])
        if self._kind == "Q8_0":
            return _joined(_half(self._steps[0, rows]), codes.astype(np.int8).view(np.uint8))
        if self._kind == "Q4_0":
            return _joined(_half(self._steps[0, rows]), _nibbles(codes + 8))
        if self._kind == "Q4_1":
            terms = [_half(self._steps[0, rows]), _half(-self._steps[1, rows])]
            return _joined(np.concatenate(terms, axis=2), _nibbles(codes))
        flat = codes.astype(np.uint8).reshape(len(rows), -1)
        return q4_k_of_int4(Int4Rows(flat, self._scales[rows], self._parts[rows]))


def _int8_steps(tensor: PackedTensor) -> Floats:
    assert tensor.scales is not None
    rows, cols = tensor.shape
    by_row = tensor.scales.transpose(0, 2, 1).reshape(-1, tensor.scales.shape[1])[:rows]
    return by_row.astype(np.float32).repeat(GROUP // SUB, axis=1)[None, :, : cols // SUB]


def _codes(blocks: Floats, terms: Floats) -> Floats:
    """What [R, groups, 32] weights are multiples of their step, after the minimum is added:
    the very codes, as a weight is off by a rounding at most. 0 where the step is."""
    step = terms[0][..., None]
    above = blocks if len(terms) == 1 else blocks + terms[1][..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(step == 0, np.float32(0), np.rint(above / step))


def _half(values: Floats) -> Bytes:
    """[R, blocks] -> uint8 [R, blocks, 2]."""
    half = values.astype("<f2")
    return half.view(np.uint8).reshape(*values.shape, 2)


def _nibbles(codes: Floats) -> Bytes:
    """[R, blocks, 32] codes 0..15 -> uint8 [R, blocks, 16]: the first half in low nibbles."""
    small = codes.astype(np.uint8)
    return small[:, :, :16] | (small[:, :, 16:] << np.uint8(4))


def _joined(scales: Bytes, codes: Bytes) -> Bytes:
    return np.concatenate([scales, codes], axis=2).reshape(len(scales), -1)


def _q8_0_of(values: Floats) -> Bytes:
    """Rounded anew, as llama.cpp does it."""
    raw: Bytes = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    return raw
