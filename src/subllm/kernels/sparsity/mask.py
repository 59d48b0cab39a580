"""Masks: which weights are kept. True, or a set bit, means kept.

Packed masks are uint64 [row_tiles, col_blocks, 8], as `layout` draws them.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from subllm.errors import PatternError
from subllm.kernels import native
from subllm.kernels.sparsity.layout import (
    TILE_COLS,
    TILE_ROWS,
    UNIT_COLS,
    UNIT_ROWS,
    UNITS,
    aligned_empty,
)
from subllm.kernels.sparsity.pattern import Pattern

Bools = npt.NDArray[np.bool_]
Bits = npt.NDArray[np.uint64]
_T = TypeVar("_T", bound=np.generic)


def select(scores: npt.NDArray[np.float32], pattern: Pattern, *, threads: int = 0) -> Bools:
    """Keeps the highest scores of each row (or group); among equals the lower column goes.

    scores float32 [R, C] -> bool [R, C]. Raises PatternError when the shape does not fit or
    a score is NaN.
    """
    scores = _matrix(scores, np.float32)
    rows, cols = scores.shape
    pattern.check(rows, cols)
    if pattern.kind == "dense":
        _refuse_nan(scores)
        return np.ones(scores.shape, np.bool_)
    out = np.empty(scores.shape, np.bool_)
    try:
        if pattern.kind == "nm":
            native.core().select_nm(scores, pattern.n, pattern.m, out, threads)
        else:
            native.core().select_rows(scores, pattern.dropped_per_row(cols), out, threads)
    except ValueError as error:
        raise PatternError(f"cannot select weights: {error}") from error
    return out


def select_reference(scores: npt.NDArray[np.float32], pattern: Pattern) -> Bools:
    """`select` by a stable ascending sort, in numpy."""
    scores = _matrix(scores, np.float32)
    rows, cols = scores.shape
    pattern.check(rows, cols)
    _refuse_nan(scores)
    width = pattern.m if pattern.kind == "nm" else cols
    drop = pattern.m - pattern.n if pattern.kind == "nm" else pattern.dropped_per_row(cols)
    groups = scores.reshape(-1, width)
    order = np.argsort(groups, axis=1, kind="stable")
    kept = np.ones(groups.shape, np.bool_)
    np.put_along_axis(kept, order[:, :drop], False, axis=1)
    return kept.reshape(rows, cols)


def pack_bits(mask: Bools, *, threads: int = 0) -> Bits:
    """bool [R, C] -> packed mask; rows and columns beyond the matrix are 0."""
    mask = _matrix(mask, np.bool_)
    rows, cols = mask.shape
    shape = (-(-rows // TILE_ROWS), -(-cols // TILE_COLS), UNITS)
    out = aligned_empty(shape[0] * shape[1] * shape[2], np.uint64).reshape(shape)
    native.core().pack_bits(mask, out, threads)
    return out


def pack_bits_reference(mask: Bools) -> Bits:
    """`pack_bits` in numpy."""
    mask = _matrix(mask, np.bool_)
    rows, cols = mask.shape
    tiles, blocks = -(-rows // TILE_ROWS), -(-cols // TILE_COLS)
    full = np.zeros((tiles * TILE_ROWS, blocks * TILE_COLS), np.bool_)
    full[:rows, :cols] = mask
    halves, pieces = TILE_ROWS // UNIT_ROWS, TILE_COLS // UNIT_COLS
    units = full.reshape(tiles, halves, UNIT_ROWS, blocks, pieces, UNIT_COLS)
    units = units.transpose(0, 3, 4, 1, 2, 5).reshape(tiles, blocks, UNITS, UNIT_ROWS * UNIT_COLS)
    return np.packbits(units, axis=3, bitorder="little").view("<u8").reshape(tiles, blocks, UNITS)


def unpack_bits(bits: Bits, rows: int, cols: int, *, threads: int = 0) -> Bools:
    """Packed mask -> bool [rows, cols]. Raises PatternError when the sizes differ."""
    out = np.empty((rows, cols), np.bool_)
    try:
        native.core().unpack_bits(np.ascontiguousarray(bits), out, threads)
    except ValueError as error:
        raise PatternError(f"a packed mask does not fit [{rows}, {cols}]: {error}") from error
    return out


def count(bits: Bits) -> int:
    """Kept weights of a packed mask."""
    return int(np.bitwise_count(bits).sum(dtype=np.int64))


def jaccard_distance(a: Bits, b: Bits) -> float:
    """1 - |a and b| / |a or b| of two packed masks: 0 the same, 1 nothing in common.

    Two empty masks are the same. Raises PatternError when the shapes differ.
    """
    if a.shape != b.shape:
        raise PatternError(
            f"masks of shapes {a.shape} and {b.shape} cannot be compared; "
            "compare models of one base"
        )
    union = count(a | b)
    return 1 - count(a & b) / union if union else 0.0


def fits(bits: Bits, rows: int, cols: int, pattern: Pattern) -> bool:
    """Whether a packed mask lies inside [rows, cols] and, for N:M, keeps N of every M."""
    mask = unpack_bits(bits, rows, cols)
    if not np.array_equal(pack_bits(mask), bits):
        return False  # a bit lies outside
    if pattern.kind != "nm":
        return True
    groups = mask.reshape(-1, pattern.m)
    return bool(np.all(np.count_nonzero(groups, axis=1) == pattern.n))


def _matrix(array: npt.NDArray[_T], dtype: type[_T]) -> npt.NDArray[_T]:
    if array.ndim != 2 or array.dtype != dtype:
        raise PatternError(
            f"expected a {np.dtype(dtype)} matrix, not {array.dtype} of shape {array.shape}"
        )
    return np.ascontiguousarray(array)


def _refuse_nan(scores: npt.NDArray[np.float32]) -> None:
    if np.isnan(scores).any():
        raise PatternError("cannot select weights: scores hold NaN")
