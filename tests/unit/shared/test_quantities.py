"""Durations and sizes as people write them."""

from __future__ import annotations

import math

import pytest

from subllm.quantities import bytes_of, seconds_of, size_text


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (0, 0),
        (300, 300),
        (2.5, 2.5),
        ("300", 300),
        ("0", 0),
        ("0s", 0),
        ("5m", 300),
        (" 1h30m ", 5400),
        ("1.5h", 5400),
        ("500ms", 0.5),
        ("2d", 172800),
        (-1, math.inf),
        ("-1", math.inf),
        ("-1m", math.inf),
        (1e9, 1e9),
        (math.inf, math.inf),
    ],
)
def test_durations(given: str | float, seconds: float) -> None:
    assert seconds_of(given) == seconds


@pytest.mark.parametrize("given", ["", "soon", "5 m", "m", "5m-", "1h,30m", "5x", math.nan, "nan"])
def test_what_is_no_duration(given: str | float) -> None:
    with pytest.raises(ValueError, match="use seconds, or a duration such as 5m"):
        seconds_of(given)


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("4GB", 4 * 10**9),
        ("4 gb", 4 * 10**9),
        ("4G", 4 * 10**9),
        ("1.5GiB", 3 * 2**29),
        ("512MiB", 2**29),
        ("300kB", 300_000),
        ("4000000000", 4 * 10**9),
        ("75%", 750),
        ("0.5 %", 5),
        ("100%", 1000),
    ],
)
def test_sizes(given: str, size: int) -> None:
    assert bytes_of(given, 1000) == size


@pytest.mark.parametrize(
    "given", ["", "0", "0%", "0.5", "101%", "-4GB", "4XB", "4i", "much", "4GB5", "%", "GB"]
)
def test_what_is_no_size(given: str) -> None:
    with pytest.raises(ValueError, match="use a size such as 4GB or 512MiB, or a share"):
        bytes_of(given, 1000)


def test_sizes_for_people() -> None:
    sizes = (999, 1000, 535_400_000, 1_300_000_000)
    assert [size_text(size) for size in sizes] == ["999 bytes", "1 kB", "535 MB", "1.3 GB"]
