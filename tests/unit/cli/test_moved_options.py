"""Options that moved: one line that says where."""

from __future__ import annotations

import pytest

from subllm.cli.moved import moved_into, refuse_moved, toml_list
from subllm.errors import UsageError

MOVED = {"--base": moved_into("the file", "base = {value}", "subllm x --show", toml_list)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--base", "b,c"], "--base moved into the file: base = ['b', 'c']; see 'subllm x"),
        (["--base=b"], "base = ['b']"),
        (["--base"], "base = ...;"),
        (["--base", "--json"], "base = ...;"),
    ],
)
def test_a_moved_option_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        refuse_moved(MOVED, arguments)
    assert message in str(error.value)


def test_others_and_arguments_are_not() -> None:
    refuse_moved(MOVED, ["--bases", "x", "--", "--base"])
