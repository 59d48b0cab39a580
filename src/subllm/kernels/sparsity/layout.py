"""Where each weight of a packed matrix lies. Version 2.

A matrix [rows, cols] is cut into tiles of 8 rows; the last tile is filled up with empty
rows. A tile is cut into blocks of 64 columns, a block into 8 units of 4 rows x 16 columns:
(columns 0..15, rows 0..3), (columns 0..15, rows 4..7), (columns 16..31, rows 0..3), ...
So a vector of 64 bytes holds a unit, and a row keeps to one lane of 16 bytes. Planes are
stored apart, little-endian, each as long as a multiple of 64 bytes:

    mask       uint64 [row_tiles, col_blocks, 8]: a word for each unit; bit 16 * r + c is its
               row r and column c. Absent when dense. Bits outside the matrix are 0.
    values     runs in the order [row_tiles][col_blocks][8], one per unit: its kept weights by
               ascending bit.
               dense          every run has 64 values, the one of bit i at i; zeros where the
                              matrix ends.
               N:M, M <= 16   every run has `slots` = 64 * N / M values, filled up with zeros.
               unstructured   a run has as many values as its mask word has bits (also where
               and N:32       every 32 keep N); tiles are 64-byte aligned and found through
                              `offsets`.
               bf16 takes 2 bytes, int8 1. int4 takes half of one: with `slots`, the two runs
               of the same 16 columns share `slots` bytes, rows 0..3 in the low nibbles and
               rows 4..7 in the high ones; else a run goes low nibble first, and one of odd
               length ends with a nibble 8. 64 zero bytes follow the last run, so that a
               vector load may overrun it.
    scales     int8: binary16 [row_tiles, col_groups, 8], one per row and 128 columns;
                     weight = code * scale.
               int4: binary16 [row_tiles, col_supers, terms, 8], one per row and 256 columns.
               bf16: absent.
    subscales  int4: uint8 [row_tiles, col_groups, terms, 8, 4], one per row and 32 columns:
                     [.., i, j] is of row (0, 4, 1, 5, 2, 6, 3, 7)[i] and the j-th 32 columns.
               Absent for the others.
    offsets    uint32 [row_tiles + 1], unstructured and N:32 only: start of each tile's values
               in units of 64 bytes; the last entry is the end.

Weights of int4, from codes 0..15: with a mask (terms = 1) scale * subscale * (code - 8);
dense (terms = 2) scale * subscale * code - minimum * subminimum, the second terms being the
minimum's. So a Q4_K tensor of a GGUF file fits without loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from subllm.errors import LayoutError
from subllm.kernels.sparsity.pattern import Pattern

LAYOUT_VERSION = 2
TILE_ROWS = 8
TILE_COLS = 64
UNIT_ROWS = 4
UNIT_COLS = 16
UNITS = 8  # of a block
SUB = 32
GROUP = 128
SUPER = 256
SUBSCALE_ROWS = (0, 4, 1, 5, 2, 6, 3, 7)
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

    @property
    def col_supers(self) -> int:
        return -(-self.cols // SUPER)

    @property
    def terms(self) -> int:
        """What int4 has of scales and subscales: minima beside them where it is dense."""
        return 2 if self.pattern.kind == "dense" else 1

    @cached_property
    def slots(self) -> int:
        """Values per run, or 0 where that varies (unstructured, N:32)."""
        if self.pattern.kind == "nm" and self.pattern.m <= UNIT_COLS:
            return TILE_COLS * self.pattern.n // self.pattern.m
        return TILE_COLS if self.pattern.kind == "dense" else 0

    @property
    def mask_shape(self) -> tuple[int, int, int] | None:
        if self.pattern.kind == "dense":
            return None
        return (self.row_tiles, self.col_blocks, UNITS)

    @property
    def scales_shape(self) -> tuple[int, ...] | None:
        if self.values == "bf16":
            return None
        if self.values == "int4":
            return (self.row_tiles, self.col_supers, self.terms, TILE_ROWS)
        return (self.row_tiles, self.col_groups, TILE_ROWS)

    @property
    def subscales_shape(self) -> tuple[int, ...] | None:
        if self.values != "int4":
            return None
        return (self.row_tiles, self.col_groups, self.terms, TILE_ROWS, GROUP // SUB)

    @property
    def offsets_shape(self) -> tuple[int] | None:
        return None if self.slots else (self.row_tiles + 1,)

    @property
    def block_bytes(self) -> int:
        """Bytes of the runs of a block, where that is fixed."""
        return UNITS * self.slots * BITS[self.values] // 8

    def values_bytes(self, offsets: npt.NDArray[np.uint32] | None = None) -> int:
        """Length of the values plane; where it varies it is told by the offsets.

        Raises LayoutError when those do not ascend from 0.
        """
        if self.slots:
            return padded(self.row_tiles * self.col_blocks * self.block_bytes) + ALIGN
        if offsets is None or offsets[0] != 0 or np.any(offsets[1:] < offsets[:-1]):
            raise LayoutError("tile offsets do not ascend from 0; the file is damaged")
        return int(offsets[-1]) * ALIGN + ALIGN


def elements(shape: tuple[int, ...] | None) -> int:
    """Elements of a plane of this shape, 0 for one that is absent."""
    return 0 if shape is None else math.prod(shape)
