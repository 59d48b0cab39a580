"""What a person reads: figures, tables, JSON."""

from __future__ import annotations

import json

import pytest

from subllm.cli import console


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (49_152, "49 kB"), (491_400_064, "491.4 MB")],
)
def test_size(count: int, text: str) -> None:
    assert console.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0.40 s"), (12.34, "12.3 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text


def test_json_goes_to_stdout_alone(capsys: pytest.CaptureFixture[str]) -> None:
    console.note("beside")
    console.emit_json({"näme": [1, None]})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"näme": [1, None]}
    assert captured.err == "beside\n"


def test_table_in_a_pipe_is_uncut(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 150
    console.table(["name", ("size", "right")], [(long, "1 MB"), ("[b]", "12 MB")])
    lines = capsys.readouterr().out.splitlines()
    assert long in lines[1]
    assert lines[2].startswith("[b] ")
    assert lines[1].rstrip().endswith(" 1 MB")


def test_facts_align(capsys: pytest.CaptureFixture[str]) -> None:
    console.facts([("name", "a"), ("empty", ""), ("a longer one", "b")])
    assert capsys.readouterr().out == "name          a\na longer one  b\n"


def test_confirm_without_a_terminal_needs_yes() -> None:
    assert console.confirm("Remove?", yes=True)
    assert not console.confirm("Remove?", yes=False)
