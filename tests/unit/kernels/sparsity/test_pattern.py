"""Patterns: spelling, errors, exact counts."""

from __future__ import annotations

import pytest

from subllm.errors import PatternError
from subllm.kernels.sparsity.pattern import GROUP_SIZES, Pattern


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("dense", "dense"),
        (" Dense ", "dense"),
        ("50%", "50%"),
        ("50.0%", "50%"),
        ("50.00%", "50%"),
        ("05%", "5%"),
        ("62.5%", "62.5%"),
        ("62.50%", "62.5%"),
        ("0.01%", "0.01%"),
        ("99.99%", "99.99%"),
        ("33.33%", "33.33%"),
        ("2:4", "2:4"),
        ("08:16", "8:16"),
        ("31:32", "31:32"),
    ],
)
def test_canonical_spelling(text: str, canonical: str) -> None:
    pattern = Pattern.parse(text)
    assert str(pattern) == canonical
    assert Pattern.parse(canonical) == pattern


@pytest.mark.parametrize(
    "text",
    [
        "", "half", "50", "0%", "0.00%", "100%", "-5%", "50.123%", "5 0%", "%", ".5%", "nan%",
        "4:2", "4:4", "0:4", "2:5", "1:2", "1:64", "2:", ":4", "2:4:8", "2/4", "-2:4", "100:4",
        "٥٠%", "２:４", "50%\n50%",
    ],
)  # fmt: skip
def test_malformed(text: str) -> None:
    with pytest.raises(PatternError) as caught:
        Pattern.parse(text)
    assert "\n" not in str(caught.value) and "use" in str(caught.value)


@pytest.mark.parametrize("m", GROUP_SIZES)
def test_every_group(m: int) -> None:
    for n in range(1, m):
        pattern = Pattern.parse(f"{n}:{m}")
        assert (pattern.kind, pattern.n, pattern.m) == ("nm", n, m)
        assert pattern.density == n / m
        assert pattern.kept_per_row(6 * m) == 6 * n
        assert pattern.dropped_per_row(6 * m) == 6 * (m - n)


def test_share_removed_is_floored_exactly() -> None:
    # 0.29 * 100 is 28.999... in binary: counting in hundredths of a percent is exact.
    assert Pattern.parse("29%").dropped_per_row(100) == 29
    assert Pattern.parse("50%").dropped_per_row(7) == 3
    assert Pattern.parse("99.99%").dropped_per_row(9999) == 9998
    assert Pattern.parse("0.01%").dropped_per_row(9999) == 0
    assert Pattern.parse("0.01%").dropped_per_row(10000) == 1
    assert Pattern.parse("33.33%").kept_per_row(3) == 3
    assert Pattern.parse("dense").dropped_per_row(7) == 0
    assert Pattern.parse("62.5%").density == 0.375


def test_shapes_that_do_not_fit() -> None:
    Pattern.parse("8:16").check(1, 16)
    Pattern.parse("50%").check(1, 1)
    for pattern, shape, hint in [
        ("8:16", (4, 24), "multiple of 16"),
        ("2:4", (1, 3), "multiple of 4"),
        ("50%", (0, 4), "no weights"),
        ("dense", (4, 0), "no weights"),
    ]:
        with pytest.raises(PatternError, match=hint):
            Pattern.parse(pattern).check(*shape)
