"""What benchmarks share, and that each can be listed and asked what it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import frame

PROGRAM = Path(__file__).resolve().parents[3] / "scripts/benchmarks"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_benchmark_is_listed_with_what_it_measures() -> None:
    listed = run()
    assert listed.returncode == 2
    lines = [line.split(maxsplit=1) for line in listed.stderr.splitlines() if line[:2] == "  "]
    files = {path.stem for path in PROGRAM.glob("*.py")} - {"__main__", "frame"}
    assert {name for name, _ in lines} == files
    assert all(told.endswith(".") for _, told in lines)
    assert run("nothing").stderr == listed.stderr


def test_a_benchmark_is_run_by_its_name() -> None:
    told = run("start", "--help")
    assert told.returncode == 0
    assert told.stdout.startswith("usage: scripts/bench start ")
    assert "its first character" in told.stdout
    assert "takes a number from 1 on" in run("start", "--rounds", "0").stderr


def test_every_round_begins_with_another() -> None:
    turns = list(frame.rounds("abc", 4))
    assert turns == [(0, [*"abc"]), (1, [*"bca"]), (2, [*"cab"]), (3, [*"abc"])]
    assert list(frame.rounds([], 2)) == [(0, []), (1, [])]


def test_medians_of_nothing_are_nothing() -> None:
    assert frame.medians({"a": [3.0, 1.0, 2.0], "b": []}) == {"a": 2.0, "b": None}


def test_a_table_is_aligned() -> None:
    told = frame.table(["", "tok/s"], [["ours", "12.5"], ["another", None]])
    assert told.splitlines() == ["         tok/s", "ours      12.5", "another      -"]


def test_options_that_many_take(tmp_path: Path) -> None:
    parser = frame.parser("x", "Measures x.", base=True, rounds=3, threads=True, json=True)
    given = parser.parse_args(["--base", "1.5b", "--json", str(tmp_path / "x.json")])
    assert (given.base, given.rounds) == ("qwen2.5-coder:1.5b", 3)
    assert given.threads >= 1
    assert parser.parse_args([]).base == "qwen2.5-coder:0.5b"
    frame.write({"value": 1}, given.json)
    assert json.loads(given.json.read_text()) == {"value": 1}


def test_the_machine_says_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    read = iter([2e9, 4e9, 3e9])
    monkeypatch.setattr(frame, "read_bandwidth", lambda threads: next(read))
    machine = frame.Machine(1)
    assert "read_bandwidth" not in machine.document()
    for _ in range(3):
        machine.read()
    assert machine.document()["read_bandwidth"] == 3e9
    assert str(machine).endswith(", 1 thread, reads 3.0 GB/s")


def test_a_busy_machine_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(frame.os, "getloadavg", lambda: (0.1, 0.0, 0.0))
    frame.Machine(1)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(frame.os, "getloadavg", lambda: (1.5, 0.0, 0.0))
    frame.Machine(1)
    assert "the machine is busy (load 1.5)" in capsys.readouterr().err
