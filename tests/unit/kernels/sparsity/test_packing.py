"""Packed planes: bit for bit as the numpy reference, and exact where exactness is promised."""

from __future__ import annotations

import dataclasses
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from subllm.errors import LayoutError, PatternError, WeightsError
from subllm.kernels.sparsity.mask import select
from subllm.kernels.sparsity.packing import (
    PackedTensor,
    pack,
    pack_codes,
    unpack,
    unpack_mask,
    unpack_rows,
)
from subllm.kernels.sparsity.pattern import Pattern
from subllm.kernels.sparsity.reference import (
    codes_reference,
    from_bf16,
    pack_reference,
    quantize_group,
    to_bf16,
    unpack_reference,
)
from subllm.kernels.sparsity.reference_int4 import quantize_int4

VALUES = ("bf16", "int8", "int4")
PATTERNS = ("dense", "1:4", "2:4", "4:8", "8:16", "16:32", "1:32", "50%", "62.5%")
SHAPES = ((1, 1), (7, 63), (8, 64), (9, 65), (9, 576), (17, 96), (3, 160))

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


def matrix(rows: int, cols: int) -> Floats:
    weights = np.random.default_rng(rows * 1000 + cols).standard_normal((rows, cols), np.float32)
    return weights * np.float32(0.03)


def mask_of(weights: Floats, pattern: Pattern) -> Bools | None:
    return None if pattern.kind == "dense" else select(np.abs(weights), pattern)


def assert_same(have: PackedTensor, want: PackedTensor) -> None:
    assert (have.shape, have.pattern, have.values) == (want.shape, want.pattern, want.values)
    for plane in ("mask", "data", "scales", "offsets", "subscales"):
        a, b = getattr(have, plane), getattr(want, plane)
        assert (a is None) == (b is None), plane
        if b is not None:
            assert (a.dtype, a.shape) == (b.dtype, b.shape), plane
            assert a.tobytes() == b.tobytes(), plane


def check_against_reference(
    weights: Floats, mask: Bools | None, pattern: str, values: str
) -> PackedTensor:
    parsed = Pattern.parse(pattern)
    packed = pack(weights, mask, pattern, values)
    packed.verify()
    assert_same(packed, pack_reference(weights, mask, parsed, values))
    assert_same(pack(weights, mask, pattern, values, threads=3), packed)
    kept = np.ones(weights.shape, np.bool_) if mask is None else mask
    assert packed.kept == kept.sum()
    assert np.array_equal(unpack_mask(packed), kept)
    dense = unpack(packed)
    assert dense.tobytes() == unpack_reference(packed).tobytes()
    assert not dense[~kept].any()
    assert unpack(packed, threads=3).tobytes() == dense.tobytes()
    rows = np.array([weights.shape[0] - 1, 0, weights.shape[0] // 2, 0])
    assert unpack_rows(packed, rows).tobytes() == dense[rows].tobytes()
    if values == "bf16":
        exact = np.where(kept, from_bf16(to_bf16(weights)), np.float32(0))
        assert dense.tobytes() == exact.tobytes()
    return packed


@pytest.mark.parametrize(
    ("shape", "pattern"),
    [
        (s, p)
        for s, p in product(SHAPES, PATTERNS)
        if ":" not in p or s[1] % int(p.split(":")[1]) == 0
    ],
)
@pytest.mark.parametrize("values", VALUES)
def test_every_shape_and_pattern(shape: tuple[int, int], pattern: str, values: str) -> None:
    weights = matrix(*shape)
    packed = check_against_reference(
        weights, mask_of(weights, Pattern.parse(pattern)), pattern, values
    )
    assert packed.data.ctypes.data % 64 == 0
    assert not packed.data[-64:].any()


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize(
    "keep", ["nothing", "everything", "one weight", "one full row", "the last column"]
)
@pytest.mark.parametrize("shape", [(1, 1), (9, 70), (16, 576)])
def test_extreme_masks(values: str, keep: str, shape: tuple[int, int]) -> None:
    mask = np.full(shape, keep == "everything")
    if keep == "one weight":
        mask[shape[0] // 2, shape[1] // 2] = True
    elif keep == "one full row":
        mask[-1] = True
    elif keep == "the last column":
        mask[:, -1] = True
    packed = check_against_reference(matrix(*shape), mask, "50%", values)
    assert packed.offsets is not None
    if keep == "nothing":
        assert packed.data.size == 64 and not packed.offsets.any()


# Beyond the range of the scales on both sides, subnormal, and the largest float32.
SIZES = (1e-45, 1e-38, 1e-9, 6e-8, 5.9e-6, 1e-3, 1.0, 65504.0, 524032.0, 8.3e6, 1e30, 3.4e38)


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("size", SIZES)
def test_extreme_sizes(values: str, size: float) -> None:
    weights = np.clip(matrix(9, 130) * np.float32(30), -1, 1) * np.float32(size)
    check_against_reference(weights, None, "dense", values)
    check_against_reference(weights, mask_of(weights, Pattern.parse("50%")), "50%", values)


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), values=st.sampled_from(VALUES), rows=st.integers(1, 9))
def test_any_weights(data: st.DataObject, values: str, rows: int) -> None:
    cols = data.draw(st.integers(1, 140))
    elements = data.draw(st.sampled_from([FINITE, st.floats(-1, 1, width=32)]))
    weights = data.draw(hnp.arrays(np.float32, (rows, cols), elements=elements))
    mask = data.draw(hnp.arrays(np.bool_, (rows, cols)))
    check_against_reference(weights, mask, "50%", values)


def test_layout_by_hand() -> None:
    """Six rows of 66 columns, kept: row 0 columns 0 and 63; row 1 columns 2 and 65; row 5
    column 15."""
    weights = np.zeros((6, 66), np.float32)
    mask = np.zeros((6, 66), np.bool_)
    kept = [(0, 0, 7.0), (0, 63, -7.0), (1, 2, 14.0), (1, 65, 7.0), (5, 15, 3.5)]
    for row, column, value in kept:
        weights[row, column], mask[row, column] = value * 0.25, True
    weights[1, 0] = 100.0  # dropped
    packed = pack(weights, mask, "50%", "int4")
    assert packed.mask is not None and packed.scales is not None and packed.offsets is not None
    assert packed.mask.shape == (1, 2, 8)
    assert packed.mask[0, 0].tolist() == [1 | 1 << 18, 1 << 31, 0, 0, 0, 0, 1 << 15, 0]
    assert packed.mask[0, 1].tolist() == [1 << 17, 0, 0, 0, 0, 0, 0, 0]
    assert packed.offsets.tolist() == [0, 1]
    # Codes + 8, low nibble first. Row 1 has steps of 0.5 for columns 0..31 and of 0.25 for 64 on.
    assert packed.data.size == 128
    assert packed.data[:4].tolist() == [15 | 15 << 4, 15 | 8 << 4, 1 | 8 << 4, 15 | 8 << 4]
    assert not packed.data[4:].any()
    assert packed.scales.shape == (1, 1, 1, 8)
    steps = [0.25, 0.5, 0, 0, 0, 0.125, 0, 0]
    assert packed.scales[0, 0, 0].tolist() == [float(np.float16(s / 255)) for s in steps]
    assert packed.subscales is not None and packed.subscales.shape == (1, 1, 1, 8, 4)
    # In the order of rows 0, 4, 1, 5, 2, 6, 3, 7.
    assert packed.subscales[0, 0, 0].tolist()[:4] == [
        [255, 255, 0, 0], [0, 0, 0, 0], [255, 0, 128, 0], [255, 0, 0, 0],
    ]  # fmt: skip
    assert abs(unpack(packed)[0, 63] + 1.75) < 2 * 2**-11


def test_layout_of_fixed_runs_by_hand() -> None:
    weights = np.arange(1, 17, dtype=np.float32).reshape(2, 8)
    mask = np.array([[1, 0, 0, 1, 0, 1, 1, 0], [0, 1, 1, 0, 1, 0, 0, 1]], np.bool_)
    packed = pack(weights, mask, "2:4", "bf16")
    # 32 slots a run, 8 units a block, one block: 512 bytes and 64 more.
    assert packed.data.size == 8 * 32 * 2 + 64
    runs = packed.data[:512].view("<u2").reshape(8, 32)
    assert from_bf16(runs[0, :9].copy()).tolist() == [1, 4, 6, 7, 10, 11, 13, 16, 0]
    assert not runs[1:].any() and packed.scales is None and packed.offsets is None


def test_dense_int4_by_hand() -> None:
    """Two runs of the same 16 columns share bytes; a dense run has a place for every weight."""
    weights = np.zeros((5, 18), np.float32)
    weights[0] = np.arange(18) % 16
    weights[4, 1] = 15.0
    packed = pack(weights, None, "dense", "int4")
    assert packed.data[:16].tolist() == [c | (15 if c == 1 else 0) << 4 for c in range(16)]
    assert unpack(packed)[0].tolist() == pytest.approx(weights[0].tolist(), abs=0.05)


def test_int8_is_exact_on_its_grid() -> None:
    codes = np.random.default_rng(2).integers(-127, 128, (16, 256)).astype(np.float32)
    codes[:, ::128] = 127
    weights = codes * np.float32(2.0**-9)
    assert np.array_equal(unpack(pack(weights, None, "dense", "int8")), weights)


@pytest.mark.parametrize("values", ["int8", "int4"])
def test_the_scale_beats_the_maximum(values: str) -> None:
    """The squared error is at most that of the naive scale, max / highest code."""
    top = 127 if values == "int8" else 7
    for seed in range(20):
        group = np.random.default_rng(seed).standard_normal(100).astype(np.float32)
        naive = np.float32(np.float16(np.abs(group).max() / top))
        rounded = np.clip(np.rint(group / naive), -top, top) * naive
        dense = unpack(pack(group[None], None, "dense", values))[0]
        # A tolerance, because the search sums in float32.
        assert ((group - dense) ** 2).sum() <= ((group - rounded) ** 2).sum() * 1.0001


def test_scales_by_hand() -> None:
    scale, codes = quantize_group(np.array([2, -4, 127], np.float32))
    assert (scale, codes.tolist()) == (1, [2, -4, 127])
    scale, codes = quantize_group(np.array([0, 0], np.float32))
    assert (scale, codes.tolist()) == (0, [0, 0])


def test_terms_of_int4_by_hand() -> None:
    levels = np.arange(64, dtype=np.float32) % 16
    weights = levels * np.float32(127.5) - np.float32(255) * (np.arange(64) >= 32)
    codes, scales, subscales = quantize_int4(weights.astype(np.float32)[None], None, None)
    assert scales.tolist() == [[[0.5, 1.0]]]
    assert subscales[0, 0, :, :3].tolist() == [[255, 255, 0], [0, 255, 0]]
    assert codes[0].tolist() == levels.tolist()
    kept = np.arange(64) % 3 != 0
    signed = (levels - 8) * np.float32(127.5)
    far = np.where(kept, signed, 9e9).astype(np.float32)
    codes, scales, subscales = quantize_int4(far[None], kept[None], None)
    assert scales.tolist() == [[[0.5]]] and subscales[0, 0, 0, :3].tolist() == [255, 255, 0]
    assert codes[0].tolist() == np.where(kept, levels, 8).tolist()


def test_codes_that_are_given() -> None:
    """What `pack` chose, handed over as codes, gives the same planes."""
    for pattern, values in product(["dense", "8:16", "50%"], ["int8", "int4"]):
        weights = matrix(20, 144)
        mask = mask_of(weights, Pattern.parse(pattern))
        packed = pack(weights, mask, pattern, values)
        assert packed.scales is not None
        codes = codes_reference(packed)
        if values == "int4" and mask is not None:
            codes += 8
        bits = codes.astype(np.int16).astype(np.uint8)
        again = pack_codes(bits, mask, pattern, values, packed.scales, packed.subscales)  # type: ignore[arg-type]
        assert_same(again, packed)
        with pytest.raises(LayoutError, match="scales"):
            pack_codes(bits, mask, pattern, values, packed.scales[:1], packed.subscales)  # type: ignore[arg-type]


@pytest.mark.parametrize("values", VALUES)
def test_negative_zero_becomes_zero(values: str) -> None:
    weights = np.array([[-0.0, 1.0, -0.0, -1e-45]], np.float32)
    dense = unpack(pack(weights, None, "dense", values))
    assert dense.view(np.uint32)[0, [0, 2]].tolist() == [0, 0]
    if values == "bf16":
        assert dense.view(np.uint32)[0, 3] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("values", VALUES)
def test_weights_that_are_not_finite(bad: float, values: str) -> None:
    weights = matrix(20, 70)
    weights[17, 69] = bad
    with pytest.raises(WeightsError, match="row 17"):
        pack(weights, None, "dense", values)


def test_arguments_that_do_not_fit() -> None:
    weights = matrix(8, 64)
    mask = mask_of(weights, Pattern.parse("8:16"))
    assert mask is not None
    wrong: list[tuple[type[Exception], str, tuple[object, ...]]] = [
        (PatternError, "needs a mask", (weights, None, "8:16", "int8")),
        (PatternError, "takes no mask", (weights, mask, "dense", "int8")),
        (PatternError, "does not follow", (weights, ~mask, "4:16", "int8")),
        (PatternError, "does not fit", (weights, mask[:7], "8:16", "int8")),
        (PatternError, "multiple of 32", (weights[:, :48], mask[:, :48], "16:32", "int8")),
        (PatternError, "unknown", (weights, mask, "8:16", "nf4")),
        (PatternError, "bool matrix", (weights, mask.astype(np.uint8), "8:16", "int8")),
        (WeightsError, "float32 matrix", (weights.astype(np.float64), mask, "8:16", "int8")),
        (WeightsError, "float32 matrix", (weights[0], mask, "8:16", "int8")),
    ]
    for error, text, arguments in wrong:
        with pytest.raises(error, match=text):
            pack(*arguments)  # type: ignore[arg-type]


def test_rows_that_do_not_exist() -> None:
    packed = pack(matrix(9, 64), None, "dense", "int8")
    for row in (-1, 9, 2**40, -(2**63)):
        with pytest.raises(LayoutError, match="not among"):
            unpack_rows(packed, np.array([0, row]))
    assert unpack_rows(packed, np.array([], np.int64)).shape == (0, 64)


def test_unpack_into() -> None:
    packed = pack(matrix(9, 64), None, "dense", "int8")
    out = np.full((9, 64), np.nan, np.float32)
    assert unpack(packed, out) is out
    assert np.array_equal(out, unpack(packed))
    for wrong in (np.empty((9, 65), np.float32), np.empty((9, 64)), np.empty((64, 9), "f4").T):
        with pytest.raises(LayoutError, match="cannot unpack"):
            unpack(packed, wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("pattern", ["8:16", "50%"])
@pytest.mark.parametrize("values", VALUES)
def test_damage_is_found(pattern: str, values: str) -> None:
    weights = matrix(20, 112)
    packed = pack(weights, mask_of(weights, Pattern.parse(pattern)), pattern, values)
    assert packed.mask is not None
    flips = [(0, 0, 0, 5), (1, 1, 3, 2), (2, 0, 7, 1), (1, 1, 0, 60)]
    for tile, block, row, bit in flips:
        mask = packed.mask.copy()
        mask[tile, block, row] ^= np.uint64(1 << bit)
        outside = (
            tile * 8 + row % 2 * 4 + bit // 16 >= 20 or block * 64 + row // 2 * 16 + bit % 16 >= 112
        )
        damaged = dataclasses.replace(packed, mask=mask)
        # Some flips of an unstructured mask hide in the padding of a tile.
        if pattern == "8:16" or outside:
            with pytest.raises(LayoutError):
                damaged.verify()
            with pytest.raises(LayoutError):
                unpack(damaged)
    shifted = {"data": packed.data[:-1], "mask": packed.mask[:-1]}
    if packed.scales is not None:
        shifted["scales"] = packed.scales[..., :4]
        endless = packed.scales.copy()
        endless.reshape(-1)[0] = np.inf
        with pytest.raises(LayoutError, match="not finite"):
            dataclasses.replace(packed, scales=endless).verify()
    for plane, array in shifted.items():
        with pytest.raises(LayoutError):
            unpack(dataclasses.replace(packed, **{plane: array}))
    if packed.offsets is not None:
        for change in ([1, 0], [0, -1], [3, 1]):
            offsets = packed.offsets.copy()
            offsets[change[0]] += np.uint32(change[1] % 2**32)
            if change[1]:
                with pytest.raises(LayoutError):
                    dataclasses.replace(packed, offsets=offsets).verify()
    if values == "bf16":
        data = packed.data.copy()
        data[1] = 0x7F
        data[0] = 0x80
        with pytest.raises(LayoutError, match="not finite"):
            dataclasses.replace(packed, data=data).verify()


def test_bytes_of_the_planes() -> None:
    weights = matrix(64, 512)
    packed = pack(weights, mask_of(weights, Pattern.parse("8:16")), "8:16", "int4")
    mask, values, scales = 64 * 512 // 8, 64 * 512 // 4 + 64, 64 * 2 * 2
    assert packed.nbytes == mask + values + scales + 64 * 512 // 32
