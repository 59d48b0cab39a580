"""int4 row by row: what other formats hold and quantisers decide, and the planes of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from subllm.kernels.sparsity.layout import GROUP, SUB, SUBSCALE_ROWS, SUPER, TILE_ROWS
from subllm.kernels.sparsity.packing import PackedTensor, pack_codes
from subllm.kernels.sparsity.pattern import Pattern

QUANTISER = 3
"""Part of a plan's identity; raised when the same weights would get other codes."""

_SUBS = SUPER // SUB
_HALVES = SUPER // GROUP


@dataclass(frozen=True, eq=False)
class Int4Rows:
    """A matrix [R, C] in int4, before it is packed; terms and meaning as in `layout`.

    codes   uint8 [R, C], 0..15; those of dropped weights mean nothing
    scales  float16 [R, supers, terms]
    parts   uint8 [R, supers, terms, 8]: subscales of each 32 columns
    """

    codes: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float16]
    parts: npt.NDArray[np.uint8]


def pack_int4(
    rows: Int4Rows, mask: npt.NDArray[np.bool_] | None, pattern: Pattern | str, *, threads: int = 0
) -> PackedTensor:
    """The packed tensor that reads exactly as `rows`. Raises as `pack_codes` does."""
    return pack_codes(rows.codes, mask, pattern, "int4", *_planes(rows), threads=threads)


def recoded(
    packed: PackedTensor, codes: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_] | None
) -> PackedTensor:
    """`packed`, of values int4, with other codes under the same scales; mask bool [R, C] is
    its mask."""
    assert packed.scales is not None
    return pack_codes(codes, mask, packed.pattern, "int4", packed.scales, packed.subscales)


def steps(packed: PackedTensor) -> npt.NDArray[np.float32]:
    """[terms, R, ceil(C / 32)]: what codes of each 32 columns are multiplied by, and without a
    mask what is subtracted then."""
    scales, parts = scales_and_parts(packed)
    rows, cols = packed.shape
    whole = scales.astype(np.float32)[..., None] * parts.astype(np.float32)
    return (
        whole.swapaxes(1, 2)
        .swapaxes(0, 1)
        .reshape(-1, rows, _SUBS * scales.shape[1])[:, :, : -(-cols // SUB)]
    )


def scales_and_parts(
    packed: PackedTensor,
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8]]:
    """Row by row, as in `Int4Rows`; parts of columns beyond the matrix are 0."""
    assert packed.scales is not None and packed.subscales is not None
    rows = packed.shape[0]
    tiles, supers, terms, _ = packed.scales.shape
    scales = packed.scales.transpose(0, 3, 1, 2).reshape(-1, supers, terms)[:rows]
    groups = packed.subscales.shape[1]
    ordered = packed.subscales[:, :, :, np.argsort(SUBSCALE_ROWS)].transpose(0, 3, 1, 2, 4)
    halves = np.zeros((tiles * TILE_ROWS, supers * _HALVES, terms, GROUP // SUB), np.uint8)
    halves[:, :groups] = ordered.reshape(-1, groups, terms, GROUP // SUB)
    by_super = halves[:rows].reshape(rows, supers, _HALVES, terms, GROUP // SUB)
    return scales, by_super.swapaxes(2, 3).reshape(rows, supers, terms, _SUBS)


def _planes(rows: Int4Rows) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8]]:
    """Scales and subscales as `layout` draws them."""
    count, supers, terms = rows.scales.shape
    tiles = -(-count // TILE_ROWS)
    groups = -(-rows.codes.shape[1] // GROUP)
    scales = np.zeros((tiles * TILE_ROWS, supers, terms), np.float16)
    scales[:count] = rows.scales
    parts = np.zeros((tiles * TILE_ROWS, supers * _HALVES, terms, GROUP // SUB), np.uint8)
    halves = rows.parts.reshape(count, supers, terms, _HALVES, GROUP // SUB)
    parts[:count] = halves.swapaxes(2, 3).reshape(count, -1, terms, GROUP // SUB)
    by_tile = parts.reshape(tiles, TILE_ROWS, -1, terms, GROUP // SUB)[:, :, :groups]
    return (
        np.ascontiguousarray(scales.reshape(tiles, TILE_ROWS, supers, terms).transpose(0, 2, 3, 1)),
        np.ascontiguousarray(by_tile[:, SUBSCALE_ROWS, :].transpose(0, 2, 3, 1, 4)),
    )
