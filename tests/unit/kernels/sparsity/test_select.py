"""Choosing which weights stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from subllm.errors import PatternError
from subllm.kernels.sparsity.mask import select, select_reference
from subllm.kernels.sparsity.pattern import Pattern

PATTERNS = ["1:4", "2:4", "3:4", "4:8", "1:8", "8:16", "15:16", "16:32", "1:32", "31:32",
            "50%", "62.5%", "0.01%", "99.99%", "dense"]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("rows", [1, 7, 33])
@pytest.mark.parametrize("groups", [1, 3, 18])
def test_equals_the_reference(pattern: str, rows: int, groups: int) -> None:
    parsed = Pattern.parse(pattern)
    cols = 32 * groups if parsed.kind == "nm" else 32 * groups + 5
    rng = np.random.default_rng(rows * groups)
    # Few distinct values, so that ties are everywhere; and infinities.
    scores = rng.integers(-3, 4, (rows, cols)).astype(np.float32)
    scores[rng.random((rows, cols)) < 0.05] = np.inf
    scores[rng.random((rows, cols)) < 0.05] = -np.inf
    mask = select(scores, parsed)
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, select_reference(scores, parsed))
    assert np.all(mask.sum(axis=1) == parsed.kept_per_row(cols))
    if parsed.kind == "nm":
        assert np.all(mask.reshape(-1, parsed.m).sum(axis=1) == parsed.n)


SCORES = st.one_of(
    st.floats(width=32, allow_nan=False),
    st.sampled_from([0.0, -0.0, 1.0, 1.5, float("inf"), float("-inf"), 1e-45, -1e-45]),
)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), pattern=st.sampled_from(PATTERNS), rows=st.integers(1, 5))
def test_any_scores(data: st.DataObject, pattern: str, rows: int) -> None:
    parsed = Pattern.parse(pattern)
    size = data.draw(st.integers(1, 4 if parsed.kind == "nm" else 70))
    cols = size * parsed.m if parsed.kind == "nm" else size
    scores = data.draw(hnp.arrays(np.float32, (rows, cols), elements=SCORES))
    mask = select(scores, parsed, threads=data.draw(st.integers(0, 3)))
    assert np.array_equal(mask, select_reference(scores, parsed))


def test_ties_drop_the_lower_column() -> None:
    same = np.ones((2, 8), np.float32)
    assert select(same, Pattern.parse("2:4")).tolist() == [[False, False, True, True] * 2] * 2
    assert select(same, Pattern.parse("50%")).tolist() == [[False] * 4 + [True] * 4] * 2
    zeros = np.array([[0.0, -0.0, -0.0, 0.0]], np.float32)  # the zeros are equal
    assert select(zeros, Pattern.parse("1:4")).tolist() == [[False, False, False, True]]
    assert select(zeros, Pattern.parse("50%")).tolist() == [[False, False, True, True]]


def test_by_hand() -> None:
    scores = np.array([[5, 1, 4, 2, 0, 9, 9, 3]], np.float32)
    assert select(scores, Pattern.parse("1:4")).astype(int).tolist() == [[1, 0, 0, 0, 0, 0, 1, 0]]
    assert select(scores, Pattern.parse("3:8")).astype(int).tolist() == [[1, 0, 0, 0, 0, 1, 1, 0]]
    assert select(scores, Pattern.parse("37.5%")).astype(int).tolist() == [[1, 0, 1, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_nan_is_refused(pattern: str) -> None:
    for bits in (0x7FC00000, 0xFFC00000, 0x7F800001):
        scores = np.zeros((40, 64), np.float32)
        scores.view(np.uint32)[33, 63] = bits
        with pytest.raises(PatternError, match="NaN"):
            select(scores, Pattern.parse(pattern))
        with pytest.raises(PatternError, match="NaN"):
            select_reference(scores, Pattern.parse(pattern))


def test_input_that_is_not_a_float32_matrix() -> None:
    for scores in (np.zeros(8, np.float32), np.zeros((2, 8)), np.zeros((1, 2, 8), np.float32)):
        with pytest.raises(PatternError, match="float32 matrix"):
            select(scores, Pattern.parse("2:4"))  # type: ignore[arg-type]
    strided = np.arange(64, dtype=np.float32).reshape(4, 16)[:, ::2]
    assert select(strided, Pattern.parse("2:4")).sum() == 16


def test_threads_do_not_change_the_choice() -> None:
    scores = np.random.default_rng(1).standard_normal((200, 96), np.float32)
    for pattern in ("8:16", "50%"):
        one = select(scores, Pattern.parse(pattern), threads=1)
        for threads in (2, 5, 0):
            assert np.array_equal(select(scores, Pattern.parse(pattern), threads=threads), one)
