"""Device functions that read packed weights, 32 columns of many rows at a time; planes as in
`planes`.

A thread holds all 32 columns of its rows (kernels have at least as many rows as threads), so
that the place of a kept value is a running count in registers. int4 of N:M has the values of 16
columns in one register, from which each column shifts its own; the others read their values at
that place, which neighbouring rows have nearly in common.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def popcount(x):
    """Bits of each int32, up to 16 of them."""
    x = x - ((x >> 1) & 0x5555)
    x = (x & 0x3333) + ((x >> 2) & 0x3333)
    x = (x + (x >> 4)) & 0x0F0F
    return (x + (x >> 8)) & 0x1F


@triton.jit
def float_of(x):
    """2^23 plus the lowest 4 bits of each int32, as float32: no conversion is as cheap."""
    return (x & 15 | 0x4B000000).to(tl.float32, bitcast=True)


@triton.jit
def word(pointers, keep):
    """int32 words as unsigned 64 bits, 0 where not `keep`."""
    return tl.load(pointers, mask=keep, other=0).to(tl.uint32, bitcast=True).to(tl.uint64)


@triton.jit
def window(codes, sixteen, row, inside, stride, KEPT: tl.constexpr):
    """The KEPT int4 values that 16 columns have, the first in the lowest bits: uint32 up to 8
    of them, else uint64. `sixteen` says which 16 columns of the matrix."""
    at = sixteen % 8 * (4 * KEPT)  # bits into the words of a group of 128 columns
    words = codes + (sixteen // 8 * KEPT + at // 32).to(tl.int64) * stride + row
    if KEPT == 8:
        found = tl.load(words, mask=inside, other=0).to(tl.uint32, bitcast=True)
    else:
        shift = at % 32
        end = row * 0 + shift + 4 * KEPT
        wide = word(words, inside)
        wide |= word(words + stride, inside & (end > 32)) << 32
        wide = wide >> shift.to(tl.uint64)
        if KEPT > 9:  # the values may reach into a third word
            high = word(words + 2 * stride, inside & (end > 64))
            wide |= high << (63 - shift).to(tl.uint64) << 1
        found = wide.to(tl.uint32) if KEPT < 8 else wide
    return found


@triton.jit
def values_at(
    codes, starts, j, rank, row, keep, inside, stride,
    VALUES: tl.constexpr, FORM: tl.constexpr, KEPT: tl.constexpr,
):  # fmt: skip
    """float32 [32, rows]: the values of a row that have `rank` among those of its group of 128
    columns, 0 where not `keep`; int4 about 8."""
    group = (j // 4).to(tl.int64)
    if FORM == "rows":
        rank += tl.load(starts + group * stride + row, mask=inside, other=0)
        pitch, before = 1, codes
    else:
        values: tl.constexpr = 8 * KEPT if FORM == "nm" else 4 * KEPT
        planes: tl.constexpr = (values + 7) // 8 if VALUES == "int4" else values
        pitch, before = stride, codes + group * (planes * stride) + row
    if VALUES == "int4":
        packed = tl.load(before + (rank >> 3) * pitch, mask=keep, other=0)
        code = (packed >> ((rank & 7) * 4) & 15).to(tl.float32)
        found = tl.where(keep, code - 8, 0.0)
    else:
        found = tl.load(before + rank * pitch, mask=keep, other=0).to(tl.float32)
    return found


@triton.jit
def earlier(mask, j, row, inside, stride, FORM: tl.constexpr, KEPT: tl.constexpr):
    """int32 [1, rows]: how many values the group of 128 columns has before the j-th 32."""
    if FORM == "nm":
        count = j % 4 * (2 * KEPT) + row * 0
    elif FORM == "n32":
        count = j % 4 * KEPT + row * 0
    else:
        count = row * 0
        for before in tl.static_range(3):
            at = mask + (j // 4 * 4 + before).to(tl.int64) * stride + row
            bits = tl.load(at, mask=inside & (count * 0 + before < j % 4), other=0)
            count += popcount(bits & 0xFFFF) + popcount(bits >> 16 & 0xFFFF)
    return count


@triton.jit
def tile(
    codes, mask, starts, j, row, inside, stride,
    VALUES: tl.constexpr, FORM: tl.constexpr, KEPT: tl.constexpr,
):  # fmt: skip
    """float32 [32, rows]: the codes of the j-th 32 columns, 0 where dropped; `row` and `inside`
    are [1, rows]. int4 about 8 where it has a mask."""
    column = tl.arange(0, 32)[:, None]
    if FORM == "dense":
        if VALUES == "int4":
            word_of = tl.arange(0, 4)[:, None]
            words = codes + (j * 4).to(tl.int64) * stride + word_of * stride + row
            packed = tl.load(words, mask=inside & (word_of >= 0), other=0)
            shift = tl.arange(0, 8)[None, :, None] * 4
            split = float_of(packed[:, None, :] >> shift) - 8388608.0
            found = tl.reshape(split, (32, row.shape[1]))
        else:
            at = codes + (j * 32).to(tl.int64) * stride + column * stride + row
            found = tl.load(at, mask=inside & (column >= 0), other=0).to(tl.float32)
    else:
        bits = tl.load(mask + j.to(tl.int64) * stride + row, mask=inside, other=0)
        keep = (bits & (1 << column)) != 0
        if FORM == "nm" and VALUES == "int4":
            first = window(codes, j * 2, row, inside, stride, KEPT)
            second = window(codes, j * 2 + 1, row, inside, stride, KEPT)
            own = tl.where(column < 16, first, second)
            # Four times the bits below a column, of its own 16: those of the column before at
            # bit 2, added up.
            four = tl.where(column < 3, bits << (3 - column), bits >> (column - 3)) & 4
            shift = tl.cumsum(four - tl.where(column == 16, 4 * KEPT, 0), 0)
            code = float_of((own >> shift.to(own.dtype)).to(tl.int32))
            found = tl.where(keep, code, 8388616.0) - 8388616.0
        else:
            bit = bits >> column & 1
            rank = tl.cumsum(bit, 0) - bit + earlier(mask, j, row, inside, stride, FORM, KEPT)
            found = values_at(codes, starts, j, rank, row, keep, inside, stride, VALUES, FORM, KEPT)
    return found


@triton.jit
def steps(
    scales, subscales, j, term, row, inside, stride, VALUES: tl.constexpr, TERMS: tl.constexpr
):
    """float32: what codes of the j-th 32 columns are multiplied by (term 0), or what is
    subtracted then (term 1 of dense int4)."""
    if VALUES == "int8":
        at = scales + (j // 4).to(tl.int64) * stride + row
        found = tl.load(at, mask=inside, other=0).to(tl.float32)
    else:
        at = scales + (j // 8 * TERMS + term).to(tl.int64) * stride + row
        part = subscales + (j * TERMS + term).to(tl.int64) * stride + row
        found = tl.load(at, mask=inside, other=0).to(tl.float32)
        found *= tl.load(part, mask=inside, other=0).to(tl.float32)
    return found
