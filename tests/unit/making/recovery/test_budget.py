from __future__ import annotations

import pytest

from subllm.errors import UsageError
from subllm.making.recovery.budget import OFF, Budget, parse_budget, parse_duration


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("90m", Budget(seconds=5400)),
        ("2h", Budget(seconds=7200)),
        ("1h30m", Budget(seconds=5400)),
        ("1.5h", Budget(seconds=5400)),
        ("45s", Budget(seconds=45)),
        ("2Mtok", Budget(tokens=2_000_000)),
        ("500ktok", Budget(tokens=500_000)),
        ("0.5Mtok", Budget(tokens=500_000)),
        ("1234tok", Budget(tokens=1234)),
        ("off", OFF),
    ],
)
def test_reads_durations_and_tokens_and_writes_what_it_reads(text, budget) -> None:
    assert parse_budget(text) == budget
    assert parse_budget(str(budget)) == budget
    assert budget.off == (text == "off")


@pytest.mark.parametrize("text", ["", "0m", "0tok", "2", "2M", "-2h", "h", "1m2h", "2 h", "soon"])
def test_refuses_anything_else(text) -> None:
    with pytest.raises(UsageError, match="90m"):
        parse_budget(text)
    with pytest.raises(UsageError, match="90m"):
        parse_duration(text)


def test_a_duration_is_no_number_of_tokens() -> None:
    assert parse_duration("1h30m") == 5400
    with pytest.raises(UsageError):
        parse_duration("2Mtok")
