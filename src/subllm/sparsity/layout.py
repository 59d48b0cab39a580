"""Where each weight of a packed matrix lies. Version 1.

A matrix [rows, cols] is cut into tiles of 8 rows; the last tile is filled up with empty
rows. A tile is cut into blocks of 64 columns. Planes are stored apart, little-endian,
each as long as a multiple of 64 bytes:

    mask     uint64 [row_tiles, col_blocks, 8]; bit j is column j of the block. Absent
             when dense. Bits outside the matrix are 0.
    values   runs in the order [row_tiles][col_blocks][8], one per mask word: its kept
             weights by ascending column.
             dense, N:M     every run has `slots` = 64 or 64 * N / M values; a block at
                            the right edge and rows below the last one are filled with
                            zeros.
             unstructured   a run has as many values as its mask word has bits; tiles are
                            64-byte aligned and found through `offsets`.
             bf16 takes 2 bytes; int8 1; int4 half a byte, low nibble first, stored as
             value + 8, a run of odd length ends with the nibble of zero.
             64 zero bytes follow the last run, so that a vector load may overrun it.
    scales   binary16 [row_tiles, col_groups, 8]: one per row and 128 columns (two blocks,
             the last group may be shorter). Absent for bf16. weight = code * scale; the
             scale of int4 may be negative (code -8 then stands for the largest weight).
    offsets  uint32 [row_tiles + 1], unstructured only: start of each tile's values in
             units of 64 bytes; the last entry is the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from subllm.errors import LayoutError
from subllm.sparsity.pattern import Pattern

LAYOUT_VERSION = 1
TILE_ROWS = 8
TILE_COLS = 64
GROUP = 128
ALIGN = 64

Values = Literal["bf16", "int8", "int4"]
VALUES: tuple[Values, ...] = get_args(Values)
_T = TypeVar("_T", bound=np.generic)
BITS: dict[str, int] = {"bf16": 16, "int8": 8, "int4": 4}


def padded(nbytes: int) -> int:
    """`nbytes` rounded up to whole units of ALIGN."""
    return -(-nbytes // ALIGN) * ALIGN


def aligned_empty(count: int, dtype: type[_T]) -> npt.NDArray[_T]:
    """Uninitialised flat array of `count` elements that starts at a multiple of ALIGN."""
    kind = np.dtype(dtype)
    nbytes = count * kind.itemsize
    raw = np.empty(nbytes + ALIGN, np.uint8)
    start = -raw.ctypes.data % ALIGN
    return raw[start : start + nbytes].view(kind)


@dataclass(frozen=True)
class Geometry:
    """Sizes of the planes of a [rows, cols] matrix with this pattern and value type."""

    rows: int
    cols: int
    pattern: Pattern
    values: Values

    @property
    def row_tiles(self) -> int:
        return -(-self.rows // TILE_ROWS)

    @property
    def col_blocks(self) -> int:
        return -(-self.cols // TILE_COLS)

    @property
    def col_groups(self) -> int:
        return -(-self.cols // GROUP)

    @cached_property
    def slots(self) -> int:
        """Values per run, or 0 where that varies (unstructured)."""
        if self.pattern.kind == "nm":
            return TILE_COLS * self.pattern.n // self.pattern.m
        return TILE_COLS if self.pattern.kind == "dense" else 0

    @property
    def mask_shape(self) -> tuple[int, int, int] | None:
        if self.pattern.kind == "dense":
            return None
        return (self.row_tiles, self.col_blocks, TILE_ROWS)

    @property
    def scales_shape(self) -> tuple[int, int, int] | None:
        if self.values == "bf16":
            return None
        return (self.row_tiles, self.col_groups, TILE_ROWS)

    @property
    def offsets_shape(self) -> tuple[int] | None:
        return (self.row_tiles + 1,) if self.pattern.kind == "unstructured" else None

    def values_bytes(self, offsets: npt.NDArray[np.uint32] | None = None) -> int:
        """Length of the values plane; an unstructured one is told by its offsets.

        Raises LayoutError when those do not ascend from 0.
        """
        if self.pattern.kind != "unstructured":
            run = self.slots * BITS[self.values] // 8
            return padded(self.row_tiles * self.col_blocks * TILE_ROWS * run) + ALIGN
        if offsets is None or offsets[0] != 0 or np.any(offsets[1:] < offsets[:-1]):
            raise LayoutError("tile offsets do not ascend from 0; the file is damaged")
        return int(offsets[-1]) * ALIGN + ALIGN


def elements(shape: tuple[int, ...] | None) -> int:
    """Elements of a plane of this shape, 0 for one that is absent."""
    return 0 if shape is None else math.prod(shape)
