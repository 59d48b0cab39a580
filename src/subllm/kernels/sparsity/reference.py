"""Packing in plain numpy: slow, short, and the truth that the native core is held to.

How int4 chooses its codes is in `reference_int4`."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from subllm.kernels.sparsity.layout import (
    ALIGN,
    GROUP,
    SUB,
    SUBSCALE_ROWS,
    SUPER,
    TILE_COLS,
    TILE_ROWS,
    UNIT_COLS,
    UNIT_ROWS,
    UNITS,
    Geometry,
    padded,
)
from subllm.kernels.sparsity.mask import pack_bits_reference
from subllm.kernels.sparsity.packing import Floats, PackedTensor
from subllm.kernels.sparsity.pattern import Pattern
from subllm.kernels.sparsity.reference_int4 import quantize_int4

_T = TypeVar("_T", bound=np.generic)
LANES = 16
INT8_DIVISORS = (126.5, 127.0, 127.5, 128.5)


def to_bf16(weights: Floats) -> npt.NDArray[np.uint16]:
    """Nearest even; -0 becomes 0; magnitudes past the largest finite value saturate."""
    bits = weights.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    magnitude = np.minimum(rounded & 0x7FFF, 0x7F7F)
    return np.where(magnitude == 0, 0, (rounded & 0x8000) | magnitude).astype(np.uint16)


def from_bf16(raw: npt.NDArray[np.uint16]) -> Floats:
    return (raw.astype(np.uint32) << 16).view(np.float32)


def _sum_lanes(terms: Floats) -> np.float32:
    """Sum in the core's order: 16 lanes, then halves folded onto each other."""
    lanes = np.zeros(LANES, np.float32)
    for chunk in terms.reshape(-1, LANES):
        lanes += chunk
    while lanes.size > 1:
        lanes = lanes[: lanes.size // 2] + lanes[lanes.size // 2 :]
    return np.float32(lanes[0])


def _codes(group: Floats, scale: np.float16) -> Floats:
    wide = np.float32(scale)
    inverse = np.float32(1) / wide if wide != 0 else np.float32(0)
    codes: Floats = np.rint(np.clip(group * inverse, -127, 127)) + np.float32(0)
    return codes


def to_half(wide: np.float32) -> np.float16:
    return np.float16(np.clip(wide, -65504, 65504))


def quantize_group(group: Floats) -> tuple[np.float16, npt.NDArray[np.int8]]:
    """int8 scale and codes of the kept weights of one row and group, by least squared error."""
    if group.size == 0 or not group.any():
        return np.float16(0), np.zeros(group.size, np.int8)
    full = np.zeros(-(-group.size // LANES) * LANES, np.float32)
    full[: group.size] = group
    edge = np.abs(group).max()

    def error_of(scale: np.float16) -> np.float32:
        difference = full - _codes(full, scale) * np.float32(scale)
        return _sum_lanes(difference * difference)

    with np.errstate(over="ignore", under="ignore"):
        candidates = [to_half(edge / np.float32(d)) for d in INT8_DIVISORS]
        best = candidates[int(np.argmin([error_of(c) for c in candidates]))]
        codes = _codes(full, best)
        squares = _sum_lanes(codes * codes)
        if squares != 0:
            refined = to_half(_sum_lanes(full * codes) / squares)
            if error_of(refined) < error_of(best):
                best = refined
    if best == 0:
        best = np.float16(0)
    return best, _codes(group, best).astype(np.int8)


def _quantize(
    weights: Floats,
    mask: npt.NDArray[np.bool_] | None,
    geometry: Geometry,
    importance: Floats | None,
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.float16] | None, npt.NDArray[np.uint8] | None]:
    """Codes [R, C] (bf16: bits), scales and subscales."""
    kept = np.ones(weights.shape, np.bool_) if mask is None else mask
    if geometry.scales_shape is None:
        return to_bf16(weights), None, None
    scales = np.zeros(geometry.scales_shape, np.float16)
    if geometry.values == "int8":
        small = np.zeros(weights.shape, np.int8)
        for row in range(geometry.rows):
            for group in range(geometry.col_groups):
                part = slice(group * GROUP, (group + 1) * GROUP)
                chosen = kept[row, part]
                scale, found = quantize_group(weights[row, part][chosen])
                scales[row // TILE_ROWS, group, row % TILE_ROWS] = scale
                small[row, part][chosen] = found
        return small, scales, None
    assert geometry.subscales_shape is not None
    subscales = np.zeros(geometry.subscales_shape, np.uint8)
    codes, found_scales, found_parts = quantize_int4(weights, mask, importance)
    for row in range(geometry.rows):
        tile, place = row // TILE_ROWS, SUBSCALE_ROWS.index(row % TILE_ROWS)
        scales[tile, :, :, row % TILE_ROWS] = found_scales[row]
        # [supers, terms, 8] -> [groups, terms, 4]
        halves = found_parts[row].reshape(geometry.col_supers, geometry.terms, -1, GROUP // SUB)
        groups = halves.swapaxes(1, 2).reshape(-1, geometry.terms, GROUP // SUB)
        subscales[tile, :, :, place] = groups[: geometry.col_groups]
    return codes, scales, subscales


def _units(array: npt.NDArray[np.generic], geometry: Geometry) -> npt.NDArray[np.generic]:
    """[R, C] -> [row_tiles, col_blocks, 8, 64], zeros beyond the matrix."""
    tiles, blocks = geometry.row_tiles, geometry.col_blocks
    full = np.zeros((tiles * TILE_ROWS, blocks * TILE_COLS), array.dtype)
    full[: array.shape[0], : array.shape[1]] = array
    halves, pieces = TILE_ROWS // UNIT_ROWS, TILE_COLS // UNIT_COLS
    units = full.reshape(tiles, halves, UNIT_ROWS, blocks, pieces, UNIT_COLS)
    return units.transpose(0, 3, 4, 1, 2, 5).reshape(tiles, blocks, UNITS, UNIT_ROWS * UNIT_COLS)


def _from_units(units: npt.NDArray[_T], geometry: Geometry) -> npt.NDArray[_T]:
    """What `_units` does, backwards."""
    tiles, blocks = geometry.row_tiles, geometry.col_blocks
    halves, pieces = TILE_ROWS // UNIT_ROWS, TILE_COLS // UNIT_COLS
    full = units.reshape(tiles, blocks, pieces, halves, UNIT_ROWS, UNIT_COLS)
    full = full.transpose(0, 3, 4, 1, 2, 5).reshape(tiles * TILE_ROWS, blocks * TILE_COLS)
    return np.ascontiguousarray(full[: geometry.rows, : geometry.cols])


def _write_runs(pair: list[npt.NDArray[np.generic]], geometry: Geometry) -> bytes:
    """The runs of rows 0..3 and 4..7 of the same 16 columns."""
    zero = 8 if geometry.values == "int4" and geometry.terms == 1 else 0
    if geometry.slots:
        full = [np.full(geometry.slots, zero, run.dtype) for run in pair]
        for run, to in zip(pair, full, strict=True):
            to[: run.size] = run
        if geometry.values == "int4":
            low, high = (run.astype(np.uint8) for run in full)
            return bytes((low | high << 4).tobytes())
        return full[0].tobytes() + full[1].tobytes()
    if geometry.values != "int4":
        return pair[0].tobytes() + pair[1].tobytes()
    out = b""
    for run in pair:
        even = np.append(run.astype(np.uint8), [np.uint8(8)] * (run.size % 2)).astype(np.uint8)
        out += (even[::2] | even[1::2] << 4).tobytes()
    return out


def pack_reference(
    weights: Floats,
    mask: npt.NDArray[np.bool_] | None,
    pattern: Pattern,
    values: str,
    importance: Floats | None = None,
) -> PackedTensor:
    """`packing.pack` without its checks."""
    rows, cols = weights.shape
    geometry = Geometry(rows, cols, pattern, values)  # type: ignore[arg-type]
    codes, scales, subscales = _quantize(weights, mask, geometry, importance)
    by_unit = _units(codes, geometry)
    kept = _units(np.ones(weights.shape, np.bool_) if mask is None else mask, geometry)
    if mask is None:
        kept = np.ones_like(kept)  # dense runs have a place for every bit
    data, offsets = bytearray(), [0]
    for tile in range(geometry.row_tiles):
        for block in range(geometry.col_blocks):
            for unit in range(0, UNITS, 2):
                pair = [by_unit[tile, block, u][kept[tile, block, u]] for u in (unit, unit + 1)]
                data += _write_runs(pair, geometry)
        if geometry.offsets_shape:
            data += bytes(padded(len(data)) - len(data))
            offsets.append(len(data) // ALIGN)
    data += bytes(padded(len(data)) - len(data) + ALIGN)
    return PackedTensor(
        (rows, cols),
        str(pattern),
        geometry.values,
        None if mask is None else pack_bits_reference(mask),
        np.frombuffer(bytes(data), np.uint8),
        scales,
        np.array(offsets, np.uint32) if geometry.offsets_shape else None,
        subscales,
    )


def codes_reference(packed: PackedTensor) -> npt.NDArray[np.int64]:
    """Codes [R, C] of int8 and int4 weights, about 8 where int4 has a mask, so that a dropped
    weight is 0; for bf16 their bits."""
    geometry = packed.geometry
    shape = (geometry.row_tiles, geometry.col_blocks, UNITS, UNIT_ROWS * UNIT_COLS)
    out = np.zeros(shape, np.int64)
    zero = 8 if packed.values == "int4" and geometry.terms == 1 else 0
    at = 0
    for tile in range(geometry.row_tiles):
        if packed.offsets is not None:
            at = int(packed.offsets[tile]) * ALIGN
        for block in range(geometry.col_blocks):
            for unit in range(UNITS):
                places = np.arange(UNIT_ROWS * UNIT_COLS)
                if packed.mask is not None:
                    word = packed.mask[tile, block, unit]
                    places = np.flatnonzero(word >> places.astype(np.uint64) & 1)
                run, at = _read_run(packed, unit, at, geometry.slots or places.size)
                out[tile, block, unit, places] = run[: places.size] - zero
    return _from_units(out, geometry)


def row_subscales(packed: PackedTensor) -> npt.NDArray[np.uint8]:
    """[R, groups, terms, 4], rows in their order."""
    assert packed.subscales is not None
    ordered = packed.subscales[:, :, :, np.argsort(SUBSCALE_ROWS)].transpose(0, 3, 1, 2, 4)
    return ordered.reshape(-1, *ordered.shape[2:])[: packed.shape[0]]


def unpack_reference(packed: PackedTensor) -> Floats:
    """`packing.unpack` without its checks."""
    rows, cols = packed.shape
    codes = codes_reference(packed)
    if packed.values == "bf16":
        return from_bf16(codes.astype(np.uint16))
    assert packed.scales is not None
    floats = codes.astype(np.float32)
    if packed.values == "int8":
        by_row = packed.scales.transpose(0, 2, 1).reshape(-1, packed.scales.shape[1])[:rows]
        by_col = by_row.astype(np.float32).repeat(GROUP, axis=1)[:, :cols]
        return floats * by_col + np.float32(0)  # no -0
    wide = packed.scales.astype(np.float32).transpose(0, 3, 1, 2)
    scales = wide.reshape(-1, *wide.shape[2:])[:rows].repeat(SUPER, axis=1)[:, :cols]
    parts = row_subscales(packed).astype(np.float32).transpose(0, 1, 3, 2)
    parts = parts.reshape(rows, -1, parts.shape[3]).repeat(SUB, axis=1)[:, :cols]
    steps = scales * parts
    if steps.shape[2] == 1:
        return steps[:, :, 0] * floats + np.float32(0)
    return steps[:, :, 0] * floats - steps[:, :, 1] + np.float32(0)


def _read_run(
    packed: PackedTensor, unit: int, at: int, slots: int
) -> tuple[npt.NDArray[np.int64], int]:
    data, fixed = packed.data, packed.offsets is None
    if packed.values == "bf16":
        return data[at : at + 2 * slots].view("<u2").astype(np.int64), at + 2 * slots
    if packed.values == "int8":
        return data[at : at + slots].view(np.int8).astype(np.int64), at + slots
    if fixed:  # two runs share the bytes
        raw = data[at : at + slots].astype(np.int64)
        return (raw >> 4, at + slots) if unit % 2 else (raw & 15, at)
    raw = data[at : at + (slots + 1) // 2].astype(np.int64)
    return np.stack([raw & 15, raw >> 4], axis=1).reshape(-1)[:slots], at + raw.size
