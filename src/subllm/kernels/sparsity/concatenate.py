"""Packed matrices stacked into one, without unpacking them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from subllm.errors import LayoutError
from subllm.kernels.sparsity.layout import ALIGN, Geometry, aligned_empty, elements
from subllm.kernels.sparsity.packing import PackedTensor

PART_ROWS = 32  # four tiles, so that a part's scales fill whole 64-byte units

_T = TypeVar("_T", bound=np.generic)


def concatenate_rows(parts: Sequence[PackedTensor]) -> PackedTensor:
    """Stacks matrices of [R_i, C] along the rows: what `pack` makes of the whole [sum R_i, C].

    All parts have the same columns, pattern and value type; every part but the last has a
    multiple of 32 rows. Raises LayoutError otherwise.
    """
    if not parts:
        raise LayoutError("there are no packed matrices to stack; give at least one")
    first = parts[0]
    for part in parts:
        part.check()
        kind = (part.shape[1], part.pattern, part.values)
        if kind != (first.shape[1], first.pattern, first.values):
            raise LayoutError(
                f"packed matrices of different columns, pattern or values cannot be stacked: "
                f"{kind} below {(first.shape[1], first.pattern, first.values)}"
            )
    for part in parts[:-1]:
        if part.shape[0] % PART_ROWS:
            raise LayoutError(
                f"a part of {part.shape[0]} rows cannot be followed by another; "
                f"cut the matrix at multiples of {PART_ROWS} rows"
            )
    rows = sum(part.shape[0] for part in parts)
    geometry = Geometry(rows, first.shape[1], first.geometry.pattern, first.values)
    offsets = _offsets(parts) if geometry.offsets_shape else None
    data = aligned_empty(geometry.values_bytes(offsets), np.uint8)
    position = 0
    for part in parts:
        used = _used_bytes(part)
        data[position : position + used] = part.data[:used]
        position += used
    data[position:] = 0
    return PackedTensor(
        (rows, first.shape[1]),
        first.pattern,
        first.values,
        _stack([part.mask for part in parts], np.uint64, geometry.mask_shape),
        data,
        _stack([part.scales for part in parts], np.float16, geometry.scales_shape),
        offsets,
        _stack([part.subscales for part in parts], np.uint8, geometry.subscales_shape),
    )


def _used_bytes(part: PackedTensor) -> int:
    """Bytes of a values plane before its padding."""
    geometry = part.geometry
    if part.offsets is not None:
        return int(part.offsets[-1]) * ALIGN
    return geometry.row_tiles * geometry.col_blocks * geometry.block_bytes


def _offsets(parts: Sequence[PackedTensor]) -> npt.NDArray[np.uint32]:
    joined, end = [np.zeros(1, np.uint64)], 0
    for part in parts:
        assert part.offsets is not None  # `check` saw to it
        joined.append(part.offsets[1:] + np.uint64(end))
        end += int(part.offsets[-1])
    if end > np.iinfo(np.uint32).max:
        raise LayoutError("the stacked matrix has too many values; keep it in several tensors")
    return np.concatenate(joined).astype(np.uint32)


def _stack(
    planes: Sequence[npt.NDArray[_T] | None], dtype: type[_T], shape: tuple[int, ...] | None
) -> npt.NDArray[_T] | None:
    if shape is None:
        return None
    out = aligned_empty(elements(shape), dtype).reshape(shape)
    np.concatenate([plane for plane in planes if plane is not None], out=out)
    return out
