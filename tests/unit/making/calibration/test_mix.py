"""Shares by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subllm.errors import CalibrationError
from subllm.making.calibration.mix import BESIDE, budgets, parse_beside, parse_mix


@pytest.mark.parametrize(
    ("spec", "shares"),
    [
        ("pack:python", {"pack:python": 1}),
        ("pack:python=3", {"pack:python": 1}),
        ("pack:python=0.7,/a/b=0.3", {"pack:python": 0.7, "/a/b": 0.3}),
        ("a=1, b=1 ,c=2", {"a": 0.25, "b": 0.25, "c": 0.5}),
        ("a=1,b=0", {"a": 1}),
        ("a=1,b=1,a=2", {"a": 0.75, "b": 0.25}),
        ("/x=y/z=1,b=1e0", {"/x=y/z": 0.5, "b": 0.5}),
    ],
)
def test_weights_become_shares(spec: str, shares: dict[str, float]) -> None:
    assert parse_mix(spec) == pytest.approx(shares)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("a,b", "'a' in --calibration has no weight; write a mix as pack:python=0.7,PATH=0.3"),
        ("a=0.5,b", "'b' in --calibration has no weight"),
        ("a=0.5,", "'' in --calibration has no weight"),
        ("=0.5,b=1", "'=0.5' in --calibration has no weight"),
        ("a=x,b=1", "'x' is no weight for 'a'"),
        ("a=nan,b=1", "'nan' is no weight for 'a'"),
        ("a=-1,b=1", "'-1' is no weight for 'a'"),
        ("a=,b=1", "'' is no weight for 'a'"),
        ("a=0,b=0.0", "the weights in --calibration sum to 0"),
    ],
)
def test_weights_that_are_none(spec: str, message: str) -> None:
    with pytest.raises(CalibrationError) as caught:
        parse_mix(spec)
    assert message in str(caught.value)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.integers(1, 10**6))
def test_budgets_sum_to_the_tokens(weights: list[float], tokens: int) -> None:
    shares = [(None, weight / sum(weights)) for weight in weights]
    counts = budgets(shares, tokens)
    assert sum(counts) == tokens
    assert all(abs(c - s * tokens) <= 1 for c, (_, s) in zip(counts, shares, strict=True))


def test_budgets_by_hand() -> None:
    assert budgets([("a", 0.7), ("b", 0.3)], 65536) == [45875, 19661]


def test_sources_that_join_others_have_shares_of_all(tmp_path: Path) -> None:
    assert parse_beside("a.jsonl") == ("a.jsonl", BESIDE)
    assert parse_beside("a=0.3") == ("a=0.3", 0.3)
    mix, share = parse_beside("a=0.2,b=0.1")
    assert mix == "a=0.2,b=0.1" and share == pytest.approx(0.3)
    odd = tmp_path / "a=1"
    odd.mkdir()
    assert parse_beside(str(odd)) == (str(odd), BESIDE)
    for spec in ("a=1", "a=0.6,b=0.5", "a=x", "a=0.5,b", "a=-1"):
        with pytest.raises(CalibrationError):
            parse_beside(spec)
