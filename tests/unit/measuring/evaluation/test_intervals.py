"""The estimator against counting every subset, and the interval against known cases."""

from __future__ import annotations

import itertools
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subllm.errors import UsageError
from subllm.measuring.evaluation.intervals import estimator, pass_at_k


@given(st.data())
def test_estimator_is_the_share_of_subsets_with_a_pass(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 9))
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    samples = [True] * c + [False] * (n - c)
    subsets = list(itertools.combinations(samples, k))
    assert estimator(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_large_numbers_do_not_overflow() -> None:
    assert estimator(2000, 3, 100) == pytest.approx(1 - comb(1997, 100) / comb(2000, 100))


@pytest.mark.parametrize(("n", "k"), [(1, 2), (9, 10), (5, 0)])
def test_k_that_cannot_be_known(n: int, k: int) -> None:
    with pytest.raises(UsageError, match=f"{n}"):
        estimator(n, 0, k)


def test_mean_over_problems() -> None:
    # (2 of 4: 1 - C(2,2)/C(4,2) = 5/6), (none), (all)
    counts = [(4, 2), (4, 0), (4, 4)]
    assert pass_at_k(counts, 2, 0).value == pytest.approx((5 / 6 + 0 + 1) / 3)
    assert pass_at_k(counts, 1, 0).value == pytest.approx(0.5)


def test_interval_of_a_coin_is_the_binomial_one() -> None:
    # 70 of 164: the binomial's 95 % interval is 0.427 +- 1.96 * sqrt(0.427 * 0.573 / 164).
    result = pass_at_k([(1, 1)] * 70 + [(1, 0)] * 94, 1, 0)
    assert result.value == pytest.approx(70 / 164)
    assert result.low == pytest.approx(0.351, abs=0.008)
    assert result.high == pytest.approx(0.503, abs=0.008)


def test_interval_follows_the_seed_alone() -> None:
    counts = [(10, c) for c in (0, 1, 5, 9, 10, 2, 0)]
    first = pass_at_k(counts, 3, 7)
    assert first == pass_at_k(counts, 3, 7)
    assert first.low < first.value < first.high
    other = pass_at_k(counts, 3, 8)
    assert (other.low, other.high) != (first.low, first.high)
    assert other.value == first.value


def test_certain_results_have_no_width() -> None:
    result = pass_at_k([(1, 1)] * 5, 1, 0)
    assert (result.low, result.value, result.high) == (1, 1, 1)


def test_no_problems() -> None:
    with pytest.raises(UsageError, match="no problems"):
        pass_at_k([], 1, 0)
