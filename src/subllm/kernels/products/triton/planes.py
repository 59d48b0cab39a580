"""A packed matrix laid out anew for GPUs, and how it gets there.

The threads of a warp take neighbouring rows, so that what they read of a plane lies side by
side and an activation is the same for all of them. So every plane has the rows last, `stride`
of them (the rows, filled up to a multiple of 32). Columns are cut into groups of 128, and a
last group is filled up with weights that are dropped (dense: code 0, beyond the columns).

    mask       int32 [4 * groups, stride]: a word for 32 columns, bit c is column c. Absent
               when dense.
    codes      of each row's kept weights by ascending column, in pieces of equal length:
               dense          groups of 128 columns, 128 values
               N:M, M <= 16   16 columns, `kept` values: [8 * groups, kept, stride]
               N:32           32 columns, `kept` values: [4 * groups, kept, stride]
               unstructured   the whole row, one row after the other: [values], see `starts`
               bf16 as bfloat16, int8 as int8. int4 as int32 words of 8 values, the first in
               the lowest bits: the values of a group of 128 columns (unstructured: of all)
               are cut into words, so [groups, ceil(values / 8), stride].
    scales     float16: int8 [groups, stride]; int4 [ceil(groups / 2), terms, stride].
    subscales  uint8, int4 only: [4 * groups, terms, stride], one for 32 columns.
    starts     int32 [groups, stride], unstructured only: index into `codes` (in values) of a
               row's first value in a group of 128 columns.

Meaning of scales, subscales and codes as `sparsity.layout` gives it. The bytes of a weight
are those of the packed file: 8:16 int4 takes 3.3 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import torch

from subllm.kernels.sparsity.layout import (
    ALIGN,
    GROUP,
    SUB,
    SUBSCALE_ROWS,
    TILE_COLS,
    TILE_ROWS,
    UNIT_COLS,
    UNIT_ROWS,
    UNITS,
    Geometry,
    Values,
)
from subllm.kernels.sparsity.packing import PackedTensor

ROW_MULTIPLE = 32
NIBBLES = 8  # of a word
_BITS = torch.tensor([bin(i).count("1") for i in range(1 << UNIT_COLS)], dtype=torch.uint8)

Form = Literal["dense", "nm", "n32", "rows"]


@dataclass(frozen=True, eq=False)
class DevicePacked:
    """A packed matrix [rows, cols] on a device; planes as above.

    form   how codes are cut: every 128 columns dense, of 16 (nm), of 32 (n32), by rows
    kept   values of such a piece: 128, N of 16 for nm, N for n32; 0 for rows
    """

    shape: tuple[int, int]
    values: Values
    form: Form
    kept: int
    mask: torch.Tensor | None
    codes: torch.Tensor
    scales: torch.Tensor | None
    subscales: torch.Tensor | None
    starts: torch.Tensor | None

    @classmethod
    def from_packed(cls, packed: PackedTensor, device: torch.device | str) -> Self:
        """Copies the planes to `device` as they lie and lays them out there. Raises LayoutError
        for planes of a wrong size; what masks hold is for `PackedTensor.verify` to check."""
        geometry = packed.check()
        raw = _Raw.of(packed, geometry, torch.device(device))
        form, kept = form_of(geometry)
        codes, starts = _laid_out(raw, form, kept)
        return cls(
            packed.shape,
            packed.values,
            form,
            kept,
            raw.mask_words(),
            codes,
            raw.scales(),
            raw.subscales(),
            starts,
        )

    @property
    def device(self) -> torch.device:
        return self.codes.device

    @property
    def stride(self) -> int:
        """Rows that planes have room for."""
        return padded_rows(self.shape[0])

    @property
    def groups(self) -> int:
        return -(-self.shape[1] // GROUP)

    @property
    def terms(self) -> int:
        """Scales of an int4 weight: with a minimum where it is dense."""
        return 2 if self.form == "dense" else 1

    @property
    def nbytes(self) -> int:
        planes = (self.mask, self.codes, self.scales, self.subscales, self.starts)
        return sum(plane.nbytes for plane in planes if plane is not None)


def padded_rows(rows: int) -> int:
    return -(-rows // ROW_MULTIPLE) * ROW_MULTIPLE


def form_of(geometry: Geometry) -> tuple[Form, int]:
    """`DevicePacked.form` and `kept` of a packed matrix."""
    pattern = geometry.pattern
    if pattern.kind == "dense":
        return "dense", GROUP
    if pattern.kind == "unstructured":
        return "rows", 0
    if pattern.m > UNIT_COLS:
        return "n32", pattern.n
    return "nm", UNIT_COLS * pattern.n // pattern.m


@dataclass(frozen=True)
class _Raw:
    """The planes of a packed file on a device, as bytes lie there."""

    geometry: Geometry
    data: torch.Tensor  # uint8
    mask: torch.Tensor | None  # int16 [R, col16], a row's 16 columns each
    file_scales: torch.Tensor | None
    file_subscales: torch.Tensor | None
    offsets: torch.Tensor | None  # int64 [row_tiles + 1]

    @classmethod
    def of(cls, packed: PackedTensor, geometry: Geometry, device: torch.device) -> _Raw:
        def moved(array: npt.NDArray[np.generic]) -> torch.Tensor:
            # A copy, as mapped memory may be read-only, and torch wants to own what it writes.
            return torch.from_numpy(np.array(array)).to(device)

        mask = None
        if packed.mask is not None:
            tiles, blocks = geometry.row_tiles, geometry.col_blocks
            words = moved(packed.mask.view(np.int16))
            units = words.view(tiles, blocks, UNITS // 2, 2, UNIT_ROWS).permute(0, 3, 4, 1, 2)
            mask = units.reshape(tiles * TILE_ROWS, blocks * (TILE_COLS // UNIT_COLS))
        return cls(
            geometry,
            moved(packed.data),
            mask,
            None if packed.scales is None else moved(packed.scales),
            None if packed.subscales is None else moved(packed.subscales),
            None if packed.offsets is None else moved(packed.offsets.astype(np.int64)),
        )

    def mask_words(self) -> torch.Tensor | None:
        if self.mask is None:
            return None
        wide = _filled(self.mask, padded_rows(self.geometry.rows), self.geometry.col_groups * 8)
        return wide.view(torch.int32).T.contiguous()

    def scales(self) -> torch.Tensor | None:
        if self.file_scales is None:
            return None
        last = self.file_scales.movedim(0, -2).flatten(-2)  # rows last
        return _filled(last, last.shape[-2], padded_rows(self.geometry.rows)).contiguous()

    def subscales(self) -> torch.Tensor | None:
        if self.file_subscales is None:
            return None
        order = torch.from_numpy(np.argsort(SUBSCALE_ROWS)).to(self.file_subscales.device)
        ordered = self.file_subscales[:, :, :, order]  # [tiles, groups, terms, 8, 4]
        last = ordered.permute(1, 4, 2, 0, 3).flatten(-2)
        last = last.reshape(-1, last.shape[2], last.shape[3])
        return _filled(last, last.shape[1], padded_rows(self.geometry.rows)).contiguous()


def _filled(plane: torch.Tensor, second_last: int, last: int) -> torch.Tensor:
    """[..., a, b] with zeros added to both ends, or cut."""
    plane = plane[..., :second_last, :last]
    room = (0, last - plane.shape[-1], 0, second_last - plane.shape[-2])
    return torch.nn.functional.pad(plane, room) if any(room) else plane


def _laid_out(raw: _Raw, form: Form, kept: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The planes `codes` and `starts`."""
    geometry = raw.geometry
    if form == "rows":
        return _by_rows(raw)
    per_group = {"dense": kept, "nm": 8 * kept, "n32": 4 * kept}[form]
    whole = form == "dense" or (form == "nm" and geometry.cols % UNIT_COLS == 0)
    pieces = _of_equal_runs(raw) if whole else _compressed(raw, form, kept)
    planes = pieces.new_zeros((geometry.col_groups * per_group, padded_rows(geometry.rows)))
    planes[: pieces.shape[0], : pieces.shape[1]] = pieces
    grouped = planes.view(geometry.col_groups, per_group, -1)
    return (_words(grouped) if geometry.values == "int4" else grouped), None


def _words(nibbles: torch.Tensor) -> torch.Tensor:
    """uint8 [groups, values, stride] -> int32 [groups, ceil(values / 8), stride]."""
    groups, values, stride = nibbles.shape
    words = nibbles.new_zeros((groups, -(-values // NIBBLES), stride), dtype=torch.int32)
    for place in range(NIBBLES):
        part = nibbles[:, place::NIBBLES]
        words[:, : part.shape[1]] |= part.to(torch.int32) << 4 * place
    return words


def _of_equal_runs(raw: _Raw) -> torch.Tensor:
    """Codes [16-column pieces times their values, R] of a file whose runs are all whole."""
    geometry = raw.geometry
    tiles, blocks, slots = geometry.row_tiles, geometry.col_blocks, geometry.slots
    kept, count = slots // UNIT_ROWS, tiles * blocks * geometry.block_bytes
    data = raw.data[:count]
    if geometry.values == "int4":
        pairs = data.view(tiles, blocks, UNITS // 2, UNIT_ROWS, kept)
        runs = torch.stack((pairs & 15, pairs >> 4), dim=3)
    else:
        dtype = torch.bfloat16 if geometry.values == "bf16" else torch.int8
        runs = data.view(dtype).view(tiles, blocks, UNITS // 2, 2, UNIT_ROWS, kept)
    # [tile, block, piece, half, row, value] -> [block, piece, value][tile, half, row]
    return runs.permute(1, 2, 5, 0, 3, 4).reshape(blocks * 4 * kept, tiles * TILE_ROWS)


def _dense_codes(raw: _Raw) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes [R, col16, 16] of a file with runs of any length, and which of them are kept; R
    up to the end of the last tile."""
    geometry, mask = raw.geometry, raw.mask
    assert mask is not None
    device = raw.data.device
    words = mask.to(torch.int32) & 0xFFFF
    counts = _BITS.to(device)[words].to(torch.int64)  # [R, col16]
    tiles, blocks = geometry.row_tiles, geometry.col_blocks
    # In the order of the file: [tile, block, piece, half, row].
    runs = counts.view(tiles, 2, UNIT_ROWS, blocks, UNITS // 2).permute(0, 3, 4, 1, 2)
    lengths = runs.sum(-1)
    in_run = runs.cumsum(-1) - runs
    int4 = geometry.values == "int4"
    if geometry.slots:
        lengths = torch.full_like(lengths, geometry.slots)
    elif int4:
        lengths = lengths + lengths % 2
    flat = lengths.reshape(tiles, -1)
    before = flat.cumsum(1) - flat
    if raw.offsets is not None:
        per_unit = ALIGN * 2 if int4 else ALIGN // (2 if geometry.values == "bf16" else 1)
        before = before + raw.offsets[:tiles, None] * per_unit
    else:
        before = before + torch.arange(tiles, device=device)[:, None] * flat.shape[1] * (
            geometry.slots
        )
    at = before.view(lengths.shape)[..., None] + in_run
    at = at.permute(0, 3, 4, 1, 2).reshape(words.shape)  # [R, col16]
    bits = words[..., None] >> torch.arange(UNIT_COLS, device=device) & 1
    index = at[..., None] + bits.cumsum(-1) - bits
    return _values_at(raw, index, bits), bits.bool()


def _values_at(raw: _Raw, index: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """The values of a file's runs at `index`, counted in values."""
    index = torch.where(bits.bool(), index, 0)
    if raw.geometry.values == "int8":
        return raw.data.view(torch.int8)[index]
    if raw.geometry.values == "bf16":
        return raw.data.view(torch.bfloat16)[index]
    if not raw.geometry.slots:
        return raw.data[index >> 1] >> (4 * (index & 1)).to(torch.uint8) & 15
    # Two runs share the bytes, that of the rows 4..7 of a tile in the high nibbles.
    slots = raw.geometry.slots
    run, place = index // slots, index % slots
    return raw.data[(run >> 1) * slots + place] >> (4 * (run & 1)).to(torch.uint8) & 15


def _compressed(raw: _Raw, form: Form, kept: int) -> torch.Tensor:
    """Codes [pieces times kept, R] of a file with runs of any length."""
    codes, bits = _dense_codes(raw)
    width = UNIT_COLS if form == "nm" else SUB
    codes, bits = (t.reshape(t.shape[0], -1, width) for t in (codes, bits))
    order = torch.argsort((~bits).to(torch.uint8), dim=-1, stable=True)
    first = codes.gather(-1, order)[..., :kept]
    return first.permute(1, 2, 0).reshape(-1, codes.shape[0])


def _by_rows(raw: _Raw) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes of all rows, one after the other, and where groups start in them."""
    geometry = raw.geometry
    codes, bits = _dense_codes(raw)
    flat = codes[bits]
    whole = bits.flatten(1).to(torch.int32)
    room = geometry.col_groups * GROUP - whole.shape[1]
    by_group = torch.nn.functional.pad(whole, (0, room))
    counts = by_group.view(bits.shape[0], geometry.col_groups, GROUP).sum(-1)
    starts = (counts.flatten().cumsum(0) - counts.flatten()).view(counts.shape)
    starts = _filled(starts.T, geometry.col_groups, padded_rows(geometry.rows))
    if geometry.values == "int4":
        room = -len(flat) % NIBBLES
        nibbles = torch.nn.functional.pad(flat, (0, room)).view(1, -1, 1)
        flat = _words(nibbles).flatten()
    if not len(flat):
        flat = flat.new_zeros(1)
    return flat, starts.to(torch.int32).contiguous()
