"""int4: its quantiser and matrices that come with codes of their own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from subllm.errors import WeightsError
from subllm.kernels.sparsity.int4 import Int4Rows, pack_int4, recoded, steps
from subllm.kernels.sparsity.mask import select
from subllm.kernels.sparsity.packing import PackedTensor, pack, unpack
from subllm.kernels.sparsity.pattern import Pattern
from subllm.kernels.sparsity.reference import codes_reference, pack_reference
from subllm.kernels.sparsity.reference_int4 import quantize_int4

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
SHAPES = ((1, 1), (9, 576), (17, 96), (8, 1000), (16, 512))
PATTERNS = ("dense", "8:16", "16:32", "50%")


def matrix(rows: int, cols: int) -> tuple[Floats, Floats]:
    """Weights, some far out, and the importance of their columns, over six magnitudes."""
    rng = np.random.default_rng(rows * 1000 + cols)
    weights = 0.03 * rng.standard_t(4, (rows, cols))
    return weights.astype(np.float32), (10 ** rng.uniform(-3, 3, cols)).astype(np.float32)


def mask_of(weights: Floats, pattern: str) -> Bools | None:
    parsed = Pattern.parse(pattern)
    return None if pattern == "dense" else select(np.abs(weights), parsed)


def cases() -> list[tuple[tuple[int, int], str]]:
    return [(s, p) for s in SHAPES for p in PATTERNS if ":" not in p or s[1] % int(p[-2:]) == 0]


def planes(packed: PackedTensor) -> list[bytes]:
    found = (packed.mask, packed.data, packed.scales, packed.subscales, packed.offsets)
    return [b"" if plane is None else plane.tobytes() for plane in found]


@pytest.mark.parametrize(("shape", "pattern"), cases())
def test_importance_as_the_reference_weighs_it(shape: tuple[int, int], pattern: str) -> None:
    weights, importance = matrix(*shape)
    mask = mask_of(weights, pattern)
    packed = pack(weights, mask, pattern, "int4", importance=importance)
    want = pack_reference(weights, mask, Pattern.parse(pattern), "int4", importance)
    assert planes(packed) == planes(want)
    alone = pack(weights, mask, pattern, "int4", importance=importance, threads=1)
    assert planes(alone) == planes(packed)


def plain(weights: Floats, kept: Bools, symmetric: bool) -> Floats:
    """Rounded to the nearest code between the extremes of 32 columns, in float64."""
    out = np.zeros(weights.shape)
    for start in range(0, weights.shape[1], 32):
        part = slice(start, start + 32)
        w = np.where(kept[:, part], weights[:, part], 0).astype(np.float64)
        low, high = w.min(1, keepdims=True), w.max(1, keepdims=True)
        if symmetric:
            step = np.maximum(np.maximum(high / 7, -low / 8), 1e-30)
            out[:, part] = np.clip(np.rint(w / step), -8, 7) * step
        else:
            step = np.maximum((high - low) / 15, 1e-30)
            out[:, part] = np.rint((w - low) / step) * step + low
    return np.where(kept, out, 0).astype(np.float32)


@pytest.mark.parametrize(("shape", "pattern"), [c for c in cases() if c[0][1] > 500])
def test_a_smaller_error_than_rounding_to_the_nearest(shape: tuple[int, int], pattern: str) -> None:
    """Though steps and minima are integer parts of one binary16 here."""
    weights, importance = matrix(*shape)
    mask = mask_of(weights, pattern)
    kept = np.ones(weights.shape, np.bool_) if mask is None else mask

    def error(values: Floats, weigh: Floats) -> float:
        return float((weigh * np.where(kept, values - weights, 0) ** 2).sum())

    alike, weighed = (
        unpack(pack(weights, mask, pattern, "int4", importance=given))
        for given in (None, importance)
    )
    ones = np.ones_like(importance)
    assert error(alike, ones) < 0.92 * error(plain(weights, kept, mask is not None), ones)
    assert error(weighed, importance) < 0.9 * error(alike, importance)


def test_what_the_grid_holds_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (8, 512)).astype(np.float32)
    codes[:, ::32], codes[:, 1::32] = 0, 15
    parts = rng.integers(128, 256, (8, 16)).astype(np.float32)
    parts[:, ::8] = 255
    step, minimum = parts * np.float32(2**-10), parts * np.float32(2**-7)
    weights = codes * step.repeat(32, axis=1) - minimum.repeat(32, axis=1)
    assert np.array_equal(unpack(pack(weights, None, "dense", "int4")), weights)


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        (np.ones(63, np.float32), "of shape"),
        (np.ones(64, np.float64), "float64"),
        (np.full(64, np.nan, np.float32), "NaN"),
        (np.full(64, -1, np.float32), "negative"),
    ],
)
def test_importance_that_cannot_be(importance: Floats, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        pack(np.ones((8, 64), np.float32), None, "dense", "int4", importance=importance)


@pytest.mark.parametrize("count", [0, 1, 40])
def test_columns_without_importance_are_not_lost(count: int) -> None:
    weights, importance = matrix(8, 64)
    importance[:count] = 0
    found = unpack(pack(weights, None, "dense", "int4", importance=importance))
    assert np.abs(found - weights).max() < 0.2 * np.abs(weights).max()


@pytest.mark.parametrize(("shape", "pattern"), cases())
def test_ready_codes_are_packed_as_they_are(shape: tuple[int, int], pattern: str) -> None:
    weights, _ = matrix(*shape)
    mask = mask_of(weights, pattern)
    rows = Int4Rows(*quantize_int4(weights, mask, None))
    packed = pack_int4(rows, mask, pattern)
    assert planes(packed) == planes(pack(weights, mask, pattern, "int4"))
    step = steps(packed)
    assert step.shape == (1 if mask is not None else 2, shape[0], -(-shape[1] // 32))
    wide = step.repeat(32, axis=2)[:, :, : shape[1]]
    codes = rows.codes.astype(np.float32)
    want = wide[0] * codes - wide[1] if mask is None else wide[0] * (codes - 8) * mask
    assert np.array_equal(unpack(packed), want)


@pytest.mark.parametrize(("shape", "pattern"), cases())
def test_other_codes_under_the_same_scales(shape: tuple[int, int], pattern: str) -> None:
    weights, _ = matrix(*shape)
    mask = mask_of(weights, pattern)
    packed = pack(weights, mask, pattern, "int4")
    codes = np.random.default_rng(0).integers(0, 16, shape).astype(np.uint8)
    again = recoded(packed, codes, mask)
    again.verify()
    want = codes.astype(np.int64) if mask is None else np.where(mask, codes.astype(int) - 8, 0)
    assert np.array_equal(codes_reference(again), want)
    assert planes(again)[2:] == planes(packed)[2:]
