"""Packing in plain numpy: slow, short, and the truth that the native core is held to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from subllm.sparsity.layout import ALIGN, GROUP, TILE_COLS, TILE_ROWS, Geometry, padded
from subllm.sparsity.mask import pack_bits_reference
from subllm.sparsity.packing import Floats, PackedTensor
from subllm.sparsity.pattern import Pattern

LANES = 16
INT4_DIVISORS = (
    *(6.5, 6.75, 7.0, 7.125, 7.25, 7.375, 7.5, 7.625, 7.75, 7.875),
    *(8.0, 8.125, 8.25, 8.5, 8.75, 9.0, 9.5, 10.0, 10.5, 11.0),
)
INT8_DIVISORS = (126.5, 127.0, 127.5, 128.5)
LIMITS = {"int8": (-127, 127), "int4": (-8, 7)}


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


def _codes(group: Floats, scale: np.float16, values: str) -> Floats:
    wide = np.float32(scale)
    inverse = np.float32(1) / wide if wide != 0 else np.float32(0)
    low, high = LIMITS[values]
    codes: Floats = np.rint(np.clip(group * inverse, low, high)) + np.float32(0)
    return codes


def quantize_group(group: Floats, values: str) -> tuple[np.float16, npt.NDArray[np.int8]]:
    """Scale and codes of the kept weights of one row and group, by least squared error."""
    if group.size == 0 or not group.any():
        return np.float16(0), np.zeros(group.size, np.int8)
    full = np.zeros(-(-group.size // LANES) * LANES, np.float32)
    full[: group.size] = group
    extreme = group[np.argmax(np.abs(group))]
    edge = -extreme if values == "int4" else np.abs(extreme)
    divisors = INT4_DIVISORS if values == "int4" else INT8_DIVISORS

    def scale_of(wide: np.float32) -> np.float16:
        return np.float16(np.clip(wide, -65504, 65504))

    def error_of(scale: np.float16) -> np.float32:
        difference = full - _codes(full, scale, values) * np.float32(scale)
        return _sum_lanes(difference * difference)

    with np.errstate(over="ignore", under="ignore"):
        candidates = [scale_of(edge / np.float32(d)) for d in divisors]
        best = candidates[int(np.argmin([error_of(c) for c in candidates]))]
        codes = _codes(full, best, values)
        squares = _sum_lanes(codes * codes)
        if squares != 0:
            refined = scale_of(_sum_lanes(full * codes) / squares)
            if error_of(refined) < error_of(best):
                best = refined
    if best == 0:
        best = np.float16(0)
    return best, _codes(group, best, values).astype(np.int8)


def _run(codes: npt.NDArray[np.generic], slots: int, values: str) -> bytes:
    """One run of the values plane, filled up with zeros to `slots`."""
    full = np.zeros(slots, codes.dtype)
    full[: codes.size] = codes
    if values != "int4":
        return full.tobytes()
    nibbles = np.full(slots + slots % 2, 8, np.uint8)
    nibbles[:slots] = full.astype(np.int16) + 8
    return (nibbles[::2] | nibbles[1::2] << 4).tobytes()


def pack_reference(
    weights: Floats, mask: npt.NDArray[np.bool_] | None, pattern: Pattern, values: str
) -> PackedTensor:
    """`packing.pack` without its checks."""
    rows, cols = weights.shape
    geometry = Geometry(rows, cols, pattern, values)  # type: ignore[arg-type]
    kept = np.ones(weights.shape, np.bool_) if mask is None else mask
    raw = to_bf16(weights) if values == "bf16" else np.zeros(weights.shape, np.int8)
    scales = None
    if geometry.scales_shape is not None:
        scales = np.zeros(geometry.scales_shape, np.float16)
        for row in range(rows):
            for group in range(geometry.col_groups):
                part = slice(group * GROUP, (group + 1) * GROUP)
                chosen = kept[row, part]
                scale, codes = quantize_group(weights[row, part][chosen], values)
                scales[row // TILE_ROWS, group, row % TILE_ROWS] = scale
                raw[row, part][chosen] = codes
    data, offsets = bytearray(), [0]
    for tile in range(geometry.row_tiles):
        for block in range(geometry.col_blocks):
            part = slice(block * TILE_COLS, (block + 1) * TILE_COLS)
            for row in range(tile * TILE_ROWS, (tile + 1) * TILE_ROWS):
                run = raw[row, part][kept[row, part]] if row < rows else raw[:0, 0]
                data += _run(run, geometry.slots or run.size, values)
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
    )


def unpack_reference(packed: PackedTensor) -> Floats:
    """`packing.unpack` without its checks."""
    geometry = packed.geometry
    rows, cols = packed.shape
    out = np.zeros((geometry.row_tiles * TILE_ROWS, geometry.col_blocks * TILE_COLS), np.float32)
    at = 0
    for tile in range(geometry.row_tiles):
        if packed.offsets is not None:
            at = int(packed.offsets[tile]) * ALIGN
        for block in range(geometry.col_blocks):
            for r in range(TILE_ROWS):
                if packed.mask is None:
                    columns = np.arange(TILE_COLS)
                else:
                    word = packed.mask[tile, block, r]
                    columns = np.flatnonzero(word >> np.arange(TILE_COLS, dtype=np.uint64) & 1)
                slots = geometry.slots or columns.size
                run, at = _read_run(packed.data, at, slots, packed.values)
                if packed.scales is not None:
                    group = block * TILE_COLS // GROUP
                    run = run * np.float32(packed.scales[tile, group, r]) + np.float32(0)  # no -0
                out[tile * TILE_ROWS + r, block * TILE_COLS + columns] = run[: columns.size]
    return np.ascontiguousarray(out[:rows, :cols])


def _read_run(data: npt.NDArray[np.uint8], at: int, slots: int, values: str) -> tuple[Floats, int]:
    if values == "bf16":
        return from_bf16(data[at : at + 2 * slots].view("<u2")), at + 2 * slots
    if values == "int8":
        return data[at : at + slots].view(np.int8).astype(np.float32), at + slots
    raw = data[at : at + (slots + 1) // 2]
    nibbles = np.stack([raw & 15, raw >> 4], axis=1).reshape(-1)[:slots]
    return nibbles.astype(np.float32) - np.float32(8), at + raw.size
