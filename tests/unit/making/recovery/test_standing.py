"""How many batches a budget holds yet."""

from __future__ import annotations

import time

import pytest

from subllm.making.recovery.budget import parse_budget
from subllm.making.recovery.standing import Run, Standing

BATCH = 100


def left(budget: str, steps: int, seconds: float, most: int = 16) -> int:
    """After so many steps and seconds of it."""
    standing = Standing("key", step=50 + steps, run_tokens=steps * BATCH, run_seconds=seconds)
    run = Run(parse_budget(budget), time.monotonic() - seconds, None, None, None)
    return run.steps_left(standing, BATCH, most)


@pytest.mark.parametrize(
    ("steps", "seconds", "expected"),
    [
        (0, 500, 16),  # nothing is known of the pace
        (10, 500, 16),  # 50 seconds each, and room for 26
        (20, 1200, 10),  # 60 seconds each, 600 left
        (20, 1740, 1),  # not even one
        (20, 2000, 1),  # the budget is over; who asks finds out
    ],
)
def test_of_a_time_as_many_as_the_pace_allows(steps: int, seconds: float, expected: int) -> None:
    assert left("30m1s", steps, seconds) == expected


def test_of_tokens_as_many_as_there_are() -> None:
    assert left("2ktok", 15, 10) == 5
    assert left("2ktok", 0, 10) == 16
    assert left("2ktok", 20, 10) == 1
