"""Every instruction set of this machine against the numpy reference.

int8 and int4 products must be equal bit for bit, whatever the kernels, tokens and threads.
bf16 products may differ in the order of the sum: by 1e-6 of the sum of magnitudes.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subllm.errors import BackendError, LayoutError
from subllm.kernels.products import ops
from subllm.kernels.products.reference import multiply_exact, multiply_reference, quantize_input
from subllm.kernels.sparsity.mask import select
from subllm.kernels.sparsity.packing import Floats, PackedTensor, pack
from subllm.kernels.sparsity.pattern import Pattern
from subllm.kernels.sparsity.reference import from_bf16, pack_reference, to_bf16, unpack_reference

ISAS = ops.isas()
VALUES = ("int4", "int8", "bf16")
PATTERNS = (
    "dense",
    "8:16",
    "10:16",
    "12:16",
    "2:4",
    "4:8",
    "1:4",
    "3:4",
    "1:16",
    "15:16",
    "16:32",
    "31:32",
    "50%",
    "70.5%",
    "3%",
)
BF16_TOLERANCE = 1e-6


def sample(
    rows: int, cols: int, pattern: str, values: str, seed: int = 0, spread: float = 0.0
) -> PackedTensor:
    """Random weights; `spread` > 0 gives rows scales that differ by powers of ten."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((rows, cols)).astype(np.float32)
    weights *= (10.0 ** rng.uniform(-spread, spread, (rows, 1))).astype(np.float32)
    parsed = Pattern.parse(pattern)
    mask = None
    if parsed.kind != "dense":
        mask = select(rng.random((rows, cols), np.float32), parsed)
    return pack(weights, mask, parsed, values)


def tokens(count: int, cols: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).standard_normal((count, cols)).astype(np.float32) * 3


def check(packed: PackedTensor, x: Floats, isa: str, bias: Floats | None = None) -> None:
    got = ops.multiply(packed, x, bias=bias, isa=isa)
    want = multiply_reference(packed, x, bias)
    if packed.values == "bf16":
        magnitude = np.abs(from_bf16(to_bf16(x))) @ np.abs(unpack_reference(packed)).T
        room = BF16_TOLERANCE * (magnitude + (0 if bias is None else np.abs(bias))) + 1e-30
        assert np.all(np.abs(got - want) <= room)
    else:
        np.testing.assert_array_equal(got, want)


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def test_scalar_is_always_there() -> None:
    assert ISAS[-1] == "scalar"


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns(isa: str, values: str, pattern: str) -> None:
    packed = sample(21, 192 if pattern != "dense" else 197, pattern, values)
    for count in (1, 2, 6, 19):
        check(packed, tokens(count, packed.shape[1]), isa)


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize(
    ("rows", "cols"), [(1, 64), (8, 16), (9, 576), (896, 128), (3, 4864), (17, 896)]
)
def test_shapes(isa: str, values: str, rows: int, cols: int) -> None:
    for pattern in ("8:16", "50%", "dense"):
        packed = sample(rows, cols, pattern, values)
        check(packed, tokens(1, cols), isa)
        check(packed, tokens(5, cols), isa, bias=tokens(1, rows)[0])


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("pattern", ["dense", "8:16", "12:16", "50%"])
def test_token_counts(isa: str, values: str, pattern: str) -> None:
    packed, x = sample(19, 320, pattern, values), tokens(100, 320)
    want = multiply_reference(packed, x)
    for count in (*range(1, 41), 64, 100):
        got = ops.multiply(packed, x[:count], isa=isa)
        if values == "bf16":
            np.testing.assert_allclose(got, want[:count], rtol=1e-4, atol=1e-3)
        else:
            np.testing.assert_array_equal(got, want[:count])


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("pattern", ["dense", "8:16", "1:4", "50%"])
def test_edges(isa: str, values: str, pattern: str) -> None:
    """Columns that fill no unit, block, group or super group; rows that fill no unit or tile."""
    step = {"dense": 1, "8:16": 16, "1:4": 4, "50%": 1}[pattern]
    for rows, cols in enumerate((1, 15, 17, 36, 63, 68, 127, 132, 144, 191, 244, 257, 272, 403), 1):
        packed = sample(rows, -(-cols // step) * step, pattern, values)
        for count in (1, 3, 17):
            check(packed, tokens(count, packed.shape[1]), isa)


@pytest.mark.parametrize("values", ["int8", "int4"])
@pytest.mark.parametrize("pattern", ["dense", "8:16", "12:16", "1:4", "50%"])
def test_any_codes_and_scales(isa: str, values: str, pattern: str) -> None:
    """Whatever a file may hold: all bytes, subscales of eight bits, scales of either sign."""
    packed = sample(16, 400, pattern, values)
    rng = np.random.default_rng(7)
    data = packed.data.copy()
    data[:-64] = rng.integers(0, 256, data.size - 64)
    assert packed.scales is not None
    packed = dataclasses.replace(
        packed,
        data=data,
        scales=rng.uniform(-2, 2, packed.scales.shape).astype(np.float16),
        subscales=packed.subscales
        if packed.subscales is None
        else rng.integers(0, 256, packed.subscales.shape, np.uint8),
    )
    x = tokens(40, 400)
    x[::3] = np.where(x[::3] < 0, -1, 1)  # codes -127 and 127 alone
    x[30:] = 1
    want = multiply_reference(packed, x)
    for count in (1, 2, 5, 8, 16, 40):
        np.testing.assert_array_equal(ops.multiply(packed, x[-count:], isa=isa), want[-count:])


def test_several_panels(isa: str) -> None:
    """More rows than a panel holds, and more columns than usual."""
    check(sample(300, 1600, "2:4", "int4"), tokens(20, 1600), isa)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    cols=st.integers(1, 700),
    count=st.integers(1, 24),
    percent=st.integers(1, 99),
    values=st.sampled_from(VALUES),
    isa=st.sampled_from(ISAS),
    seed=st.integers(0, 2**31),
)
def test_any_unstructured(
    rows: int, cols: int, count: int, percent: int, values: str, isa: str, seed: int
) -> None:
    check(sample(rows, cols, f"{percent}%", values, seed), tokens(count, cols, seed), isa)


@pytest.mark.parametrize("values", VALUES)
def test_uneven_masks(isa: str, values: str) -> None:
    """Empty rows, full rows, one kept weight at either end, an empty tile, full sixteenths."""
    rows, cols = 24, 300
    mask = np.zeros((rows, cols), np.bool_)
    mask[1] = True
    mask[2, 0] = mask[3, -1] = mask[4, 63] = mask[5, 64] = True
    mask[6, 16:32] = mask[7, 1:17] = True
    mask[16:20, ::3] = mask[20:, 5:133] = True
    weights = np.random.default_rng(5).standard_normal((rows, cols)).astype(np.float32)
    packed = pack_any(weights, mask, values)
    for count in (1, 3, 18):
        check(packed, tokens(count, cols), isa)


def pack_any(weights: Floats, mask: npt.NDArray[np.bool_], values: str) -> PackedTensor:
    """Any mask at all, laid out as an unstructured one."""
    return pack_reference(weights, mask, Pattern.parse("50%"), values)


@pytest.mark.parametrize("values", VALUES)
def test_every_mask_of_eight_in_sixteen(isa: str, values: str) -> None:
    """All 12,870: runs, alternations, every count of the first byte."""
    masks = np.zeros((12_870, 16), np.bool_)
    for row, kept in enumerate(combinations(range(16), 8)):
        masks[row, list(kept)] = True
    mask = masks[np.random.default_rng(2).permutation(12_960) % 12_870].reshape(-1, 64 * 3)
    weights = np.random.default_rng(3).standard_normal(mask.shape).astype(np.float32)
    packed = pack(weights, mask, Pattern.parse("8:16"), values)
    for count in (1, 2, 5):
        check(packed, tokens(count, mask.shape[1]), isa)


@pytest.mark.parametrize("pattern", ["8:16", "12:16", "50%", "dense"])
@pytest.mark.parametrize("values", ["int8", "int4"])
def test_the_largest_sums_fit(isa: str, values: str, pattern: str) -> None:
    """Every product of a group as large as can be, of either sign."""
    largest = {"int8": 127, "int4": -8}[values]
    for sign in (1, -1):
        weights = np.full((16, 384), largest, np.float32)
        weights[:8] *= np.where(np.arange(384) < 256, 1, -1)
        x = np.full((18, 384), sign * 127, np.float32)
        x[1::2] *= np.where(np.arange(384) % 2, 1, -1)
        parsed = Pattern.parse(pattern)
        mask = None if parsed.kind == "dense" else select(np.abs(tokens(16, 384, 4)), parsed)
        packed = pack(weights, mask, parsed, values)
        check(packed, x, isa)
        check(packed, x[:1], isa)


def test_what_is_laid_out_anew(isa: str) -> None:
    """int4 that keeps half of every 16 columns at most, in 3.75 bits a weight, whole groups."""
    picks = isa in ("avx2", "avx_vnni")
    for pattern, values, cols, expected in (
        ("8:16", "int4", 448, 3 * 4 * 480),
        ("2:4", "int4", 204, 3 * 2 * 480),
        ("8:16", "int8", 448, 0),
        ("12:16", "int4", 448, 0),
        ("dense", "int4", 448, 0),
    ):
        matrix, x = ops.Matrix(sample(21, cols, pattern, values)), tokens(1, cols)
        ops.multiply_all(ops.Pool(1), [matrix], x, [np.empty((1, 21), np.float32)], isa=isa)
        if picks or os.environ.get("SUBLLM_ISA", ISAS[0]) not in ("avx2", "avx_vnni"):
            assert matrix.handle.relaid_bytes == (expected if picks else 0)


@pytest.mark.parametrize("pattern", ["8:16", "12:16", "50%", "dense"])
@pytest.mark.parametrize("values", ["int8", "int4"])
def test_the_largest_codes_fit(isa: str, values: str, pattern: str) -> None:
    """As above with what no quantiser writes: extreme codes throughout, subscales of 255."""
    packed = sample(16, 384, pattern, values)
    if packed.subscales is not None:
        packed.subscales[:] = 255
    x = np.full((13, 384), 127, np.float32)
    x[1::3] *= np.where(np.arange(384) % 2, 1, -1)
    x[2::3] = -127
    for byte in (0x00, 0x0F, 0xF0, 0xFF) if values == "int4" else (0x7F, 0x80, 0x81):
        packed.data[:] = byte
        for count in (13, 1, 3):
            check(packed, x[:count], isa)


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize(
    ("pattern", "cols"),
    [("dense", 203), ("8:16", 208), ("4:8", 200), ("2:4", 204), ("6:8", 456), ("50%", 203)],
)
def test_every_number_of_tokens(isa: str, values: str, pattern: str, cols: int) -> None:
    """As the scalar kernels, which other tests compare; columns end where it is awkward."""
    packed, bias = sample(27, cols, pattern, values), tokens(1, 27)[0]
    x = tokens(40, cols)
    want = ops.multiply(packed, x, bias=bias, isa="scalar")
    for count in range(1, 41):
        got = ops.multiply(packed, x[:count], bias=bias, isa=isa)
        if values == "bf16":
            np.testing.assert_allclose(got, want[:count], rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(got, want[:count])


@pytest.mark.parametrize("values", VALUES)
def test_extreme_scales(isa: str, values: str) -> None:
    packed = sample(24, 256, "8:16", values, spread=4.0)
    x = tokens(6, 256)
    x[0] = 0
    x[1] *= np.float32(1e-32)
    x[2] *= np.float32(1e25)
    x[3, :128] = 0
    x[4] = np.float32(1e-28)
    x[5] = np.where(np.arange(256) % 7 == 0, np.float32(-1e4), np.float32(1e-4))
    check(packed, x, isa)


def test_every_code_of_int4(isa: str) -> None:
    """-8 too, which symmetric codes leave out."""
    weights = np.tile(np.arange(-8, 8, dtype=np.float32), (8, 16))
    packed = pack(weights, None, "dense", "int4")
    codes = packed.data[: 8 * 256 // 2]
    assert set(codes & 15) | set(codes >> 4) == set(range(16))
    for count in (1, 17):
        check(packed, tokens(count, 256), isa)


@pytest.mark.parametrize("values", VALUES)
def test_exact_input(values: str) -> None:
    packed = sample(21, 576, "8:16", values)
    x, bias = tokens(7, 576), tokens(1, 21, 3)[0]
    got = ops.multiply(packed, x, bias=bias, exact=True)
    np.testing.assert_allclose(got, multiply_exact(packed, x, bias), rtol=1e-6, atol=1e-5)


def test_rounding_of_activations_costs_little() -> None:
    packed = sample(64, 896, "8:16", "int8")
    x = tokens(16, 896)
    exact = ops.multiply(packed, x, exact=True)
    rounded = ops.multiply(packed, x)
    assert np.linalg.norm(rounded - exact) < 0.01 * np.linalg.norm(exact)


@pytest.mark.parametrize("values", VALUES)
def test_threads_change_nothing(isa: str, values: str) -> None:
    packed = sample(203, 448, "50%", values)
    for count in (1, 23):
        x = tokens(count, 448)
        one, two = (ops.multiply(packed, x, isa=isa, threads=n) for n in (1, 2))
        np.testing.assert_array_equal(one, two)


def test_other_tokens_change_nothing(isa: str) -> None:
    packed = sample(40, 448, "8:16", "int8")
    x = tokens(37, 448)
    together = ops.multiply(packed, x, isa=isa)
    alone = np.concatenate([ops.multiply(packed, row[None], isa=isa) for row in x])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("values", ["int8", "int4"])
@pytest.mark.parametrize("where", [0, 32, 127, 130])
def test_a_nan_is_never_lost(isa: str, values: str, where: int) -> None:
    """Nor does it let larger activations of its group overflow."""
    x = np.ones((1, 192), np.float32)
    x[0, [16, 140]] = -1e30
    x[0, where] = np.nan
    got = ops.multiply(sample(9, 192, "8:16", values), x, isa=isa)
    assert np.isnan(got).all()


def test_many_matrices_share_an_input(isa: str) -> None:
    matrices = [
        sample(rows, 192, pattern, values, seed=rows)
        for rows, pattern, values in (
            (64, "8:16", "int4"), (3, "dense", "bf16"), (120, "50%", "int8"), (8, "dense", "int8")
        )
    ]  # fmt: skip
    x = tokens(5, 192)
    outs = [np.full((5, m.shape[0]), np.nan, np.float32) for m in matrices]
    pool = ops.Pool(2)
    ops.multiply_all(pool, [ops.Matrix(m) for m in matrices], x, outs, isa=isa)
    for packed, out in zip(matrices, outs, strict=True):
        np.testing.assert_array_equal(out, ops.multiply(packed, x, isa=isa))
        check(packed, x, isa)


def test_quantized_by_hand() -> None:
    x = np.zeros((1, 130), np.float32)
    x[0, :4] = [127, -63.5, 0.5, 1.5]
    x[0, 128:] = [-2, 1]
    codes, scales = quantize_input(x)
    assert codes[0, 0, :4].tolist() == [127, -64, 0, 2]  # nearest even
    assert codes[0, 1, :3].tolist() == [-127, 64, 0]
    np.testing.assert_array_equal(scales, np.array([[1, np.float32(2) / 127]], np.float32))


def test_product_by_hand(isa: str) -> None:
    """Weights that are their own codes, activations that are theirs."""
    weights = np.zeros((2, 64), np.float32)
    weights[0, [0, 1]] = [127, 2]
    weights[1, [0, 63]] = [-127, 1]
    mask = weights != 0
    packed = pack_any(weights, mask, "int8")
    x = np.zeros((1, 64), np.float32)
    x[0, [0, 1, 63]] = [127, -3, 5]
    np.testing.assert_allclose(
        ops.multiply(packed, x, isa=isa), [[127 * 127 - 6, -127 * 127 + 5]], rtol=1e-6
    )


def test_refusals() -> None:
    packed = sample(8, 64, "8:16", "int8")
    with pytest.raises(BackendError, match="choose one of"):
        ops.multiply(packed, tokens(1, 64), isa="sse9")
    with pytest.raises(LayoutError, match="columns"):
        ops.multiply(packed, tokens(1, 128))
    with pytest.raises(LayoutError, match="float32"):
        ops.multiply(packed, tokens(1, 64).astype(np.float64))  # type: ignore[arg-type]


@pytest.mark.parametrize("pattern", ["8:16", "50%"])
def test_damaged_masks_are_refused(pattern: str) -> None:
    packed = sample(8, 256, pattern, "int8")
    assert packed.mask is not None
    packed.mask[:] = ~np.uint64(0)
    with pytest.raises(LayoutError, match="damaged"):
        ops.Matrix(packed)
