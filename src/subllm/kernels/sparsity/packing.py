"""Dense matrix <-> packed planes. The native core does the work; `reference` holds the
same in numpy, equal bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from subllm.errors import LayoutError, PatternError, WeightsError
from subllm.kernels import native
from subllm.kernels.sparsity.layout import VALUES, Geometry, Values, aligned_empty, elements
from subllm.kernels.sparsity.mask import count, fits, pack_bits, unpack_bits
from subllm.kernels.sparsity.pattern import Pattern

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PackedTensor:
    """A packed matrix; planes as `layout` draws them. They may be read-only mapped memory.

    shape     (rows, cols)
    pattern   canonical pattern: "dense", "50%", "8:16", ...
    values    how kept weights are coded
    mask      uint64 [row_tiles, col_blocks, 8], None when dense
    data      uint8 flat: the values plane with its padding
    scales    float16, None for bf16
    offsets   uint32 [row_tiles + 1], unstructured and N:32 only
    subscales uint8 [row_tiles, col_groups, terms, 8, 4], int4 only
    """

    shape: tuple[int, int]
    pattern: str
    values: Values
    mask: npt.NDArray[np.uint64] | None
    data: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float16] | None
    offsets: npt.NDArray[np.uint32] | None
    subscales: npt.NDArray[np.uint8] | None = None

    @property
    def geometry(self) -> Geometry:
        return Geometry(*self.shape, Pattern.parse(self.pattern), self.values)

    @property
    def kept(self) -> int:
        """Weights that the mask keeps."""
        return self.shape[0] * self.shape[1] if self.mask is None else count(self.mask)

    @property
    def nbytes(self) -> int:
        """Bytes of all planes."""
        planes = (self.mask, self.data, self.scales, self.offsets, self.subscales)
        return sum(plane.nbytes for plane in planes if plane is not None)

    def check(self) -> Geometry:
        """Raises LayoutError unless every plane has the type and size that belong here."""
        geometry = self.geometry
        for name, plane, dtype, shape in (
            ("mask", self.mask, np.uint64, geometry.mask_shape),
            ("scales", self.scales, np.float16, geometry.scales_shape),
            ("offsets", self.offsets, np.uint32, geometry.offsets_shape),
            ("subscales", self.subscales, np.uint8, geometry.subscales_shape),
        ):
            have = None if plane is None else (plane.dtype, plane.shape)
            want = None if shape is None else (np.dtype(dtype), shape)
            if have != want:
                raise LayoutError(f"the {name} plane is {have}, not {want}; pack the tensor again")
        size = geometry.values_bytes(self.offsets)
        if self.data.dtype != np.uint8 or self.data.shape != (size,):
            raise LayoutError(
                f"the values plane is {self.data.dtype} {self.data.shape}, not uint8 ({size},); "
                "pack the tensor again"
            )
        return geometry

    def verify(self) -> None:
        """Reads the contents too. Raises LayoutError for a mask that breaks the pattern,
        for values that do not match the mask, or for a scale that is not finite."""
        geometry = self.check()
        if self.mask is not None and not fits(self.mask, *self.shape, geometry.pattern):
            raise LayoutError(f"a mask does not follow pattern {self.pattern}; the file is damaged")
        if self.scales is not None and not np.isfinite(self.scales).all():
            raise LayoutError("a scale is not finite; the file is damaged")
        if self.offsets is not None and not np.array_equal(
            self.offsets, _tile_offsets(geometry, self.mask)
        ):
            raise LayoutError("tile offsets do not match the mask; the file is damaged")
        if self.values == "bf16" and np.any((self.data.view("<u2") & 0x7F80) == 0x7F80):
            raise LayoutError("a weight is not finite; the file is damaged")


def pack(
    weights: Floats,
    mask: npt.NDArray[np.bool_] | None,
    pattern: Pattern | str,
    values: str,
    *,
    importance: Floats | None = None,
    threads: int = 0,
) -> PackedTensor:
    """Packs float32 [R, C]; `mask` bool [R, C] is None for the pattern "dense" alone.

    importance  float32 [C], not negative: what a squared error in each column counts for
                int4, best the mean square of its input; None counts all alike

    The result does not depend on `threads`. bf16 rounds to the nearest even; int8 takes,
    per row and 128 columns, the binary16 scale with the least squared error among a fixed
    list and its closed-form refinement; int4 see `reference_int4`. A scale is at most 65504,
    so weights beyond 8.3e6 (int8) saturate, and at least 6e-8, so smaller ones become 0.

    Raises PatternError when mask and pattern do not fit each other, WeightsError for NaN
    or infinity in the weights.
    """
    if isinstance(pattern, str):
        pattern = Pattern.parse(pattern)
    if values not in VALUES:
        raise PatternError(f"value type {values!r} is unknown; use one of {', '.join(VALUES)}")
    if weights.ndim != 2 or weights.dtype != np.float32:
        raise WeightsError(
            f"expected a float32 matrix to pack, not {weights.dtype} of shape {weights.shape}"
        )
    weights = np.ascontiguousarray(weights)
    rows, cols = weights.shape
    pattern.check(rows, cols)
    if importance is not None:
        importance = _checked_importance(importance, cols)
    geometry = Geometry(rows, cols, pattern, values)
    packed = _empty(geometry, mask, threads)
    try:
        native.core().pack(weights, importance, *core_planes(packed), threads)
    except ValueError as error:
        raise WeightsError(f"cannot pack a tensor: {error}") from error
    return packed


def pack_codes(
    codes: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.bool_] | None,
    pattern: Pattern | str,
    values: Literal["int8", "int4"],
    scales: npt.NDArray[np.float16],
    subscales: npt.NDArray[np.uint8] | None = None,
    *,
    threads: int = 0,
) -> PackedTensor:
    """Packs weights that are quantised already.

    codes uint8 [R, C]: 0..15 for int4, the bits of an int8 for int8; `scales` and `subscales`
    as `layout` draws them. Raises PatternError when mask and pattern do not fit each other,
    LayoutError when scales do not fit the shape.
    """
    if isinstance(pattern, str):
        pattern = Pattern.parse(pattern)
    rows, cols = codes.shape
    pattern.check(rows, cols)
    packed = _empty(Geometry(rows, cols, pattern, values), mask, threads)
    packed = replace(packed, scales=scales, subscales=subscales)
    packed.check()
    try:
        codes = np.ascontiguousarray(codes)
        native.core().pack_codes(codes, *core_planes(packed), threads)
    except ValueError as error:
        raise WeightsError(f"cannot pack a tensor: {error}") from error
    return packed


def unpack(packed: PackedTensor, out: Floats | None = None, *, threads: int = 0) -> Floats:
    """Packed planes -> float32 [R, C] with zeros for dropped weights.

    `out`, if given, is filled and returned. Raises LayoutError for planes that contradict
    each other.
    """
    packed.check()
    if out is None:
        out = np.empty(packed.shape, np.float32)
    elif out.shape != packed.shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise LayoutError(f"cannot unpack {packed.shape} into {out.dtype} of shape {out.shape}")
    try:
        native.core().unpack(*core_planes(packed), out, threads)
    except ValueError as error:
        raise LayoutError(f"a packed tensor is damaged: {error}") from error
    return out


def unpack_rows(packed: PackedTensor, rows: npt.NDArray[np.int64], *, threads: int = 0) -> Floats:
    """Rows `rows` int64 [k] -> float32 [k, C]. Raises LayoutError as `unpack` does, and for
    a row that does not exist."""
    packed.check()
    indices = np.ascontiguousarray(rows, np.int64).reshape(-1)
    out = np.empty((indices.size, packed.shape[1]), np.float32)
    try:
        native.core().unpack_rows(packed.shape[0], *core_planes(packed), indices, out, threads)
    except ValueError as error:
        raise LayoutError(f"cannot read rows of a packed tensor: {error}") from error
    return out


def unpack_mask(packed: PackedTensor) -> npt.NDArray[np.bool_]:
    """bool [R, C], True where a weight is kept."""
    if packed.mask is None:
        return np.ones(packed.shape, np.bool_)
    return unpack_bits(packed.mask, *packed.shape)


def _checked_importance(importance: Floats, cols: int) -> Floats:
    shape, dtype = importance.shape, importance.dtype
    if shape != (cols,) or dtype != np.float32:
        raise WeightsError(f"importance is {dtype} of shape {shape}, not float32 ({cols},)")
    if not np.isfinite(importance).all() or (importance < 0).any():
        raise WeightsError("importance holds NaN, infinity or a negative number")
    return np.ascontiguousarray(importance)


def _empty(geometry: Geometry, mask: npt.NDArray[np.bool_] | None, threads: int) -> PackedTensor:
    """Planes to be filled, the mask's and the offsets already so."""
    bits = _bits_of(mask, geometry, threads)
    offsets = _tile_offsets(geometry, bits) if geometry.offsets_shape else None
    scales = subscales = None
    if (shape := geometry.scales_shape) is not None:
        scales = aligned_empty(elements(shape), np.float16).reshape(shape)
    if (shape := geometry.subscales_shape) is not None:
        subscales = aligned_empty(elements(shape), np.uint8).reshape(shape)
    return PackedTensor(
        (geometry.rows, geometry.cols),
        str(geometry.pattern),
        geometry.values,
        bits,
        aligned_empty(geometry.values_bytes(offsets), np.uint8),
        scales,
        offsets,
        subscales,
    )


def _bits_of(
    mask: npt.NDArray[np.bool_] | None, geometry: Geometry, threads: int
) -> npt.NDArray[np.uint64] | None:
    if (mask is None) != (geometry.pattern.kind == "dense"):
        raise PatternError(
            f"pattern {geometry.pattern} {'needs a' if mask is None else 'takes no'} mask"
        )
    if mask is None:
        return None
    shape = (geometry.rows, geometry.cols)
    if mask.shape != shape:
        raise PatternError(f"a mask of shape {mask.shape} does not fit weights of shape {shape}")
    bits = pack_bits(mask, threads=threads)
    if not fits(bits, *shape, geometry.pattern):
        raise PatternError(f"the mask does not follow pattern {geometry.pattern}")
    return bits


def _tile_offsets(
    geometry: Geometry, bits: npt.NDArray[np.uint64] | None
) -> npt.NDArray[np.uint32]:
    out = np.empty(geometry.row_tiles + 1, np.uint32)
    native.core().tile_offsets(geometry.rows, geometry.cols, geometry.values, bits, out)
    return out


def core_planes(packed: PackedTensor) -> tuple[Any, ...]:
    """The arguments that describe a packed tensor to the native core."""
    scales = None if packed.scales is None else packed.scales.view(np.uint16)
    slots = packed.geometry.slots
    return (
        *(slots, packed.values, packed.mask, packed.offsets, packed.data),
        *(scales, packed.subscales),
    )
