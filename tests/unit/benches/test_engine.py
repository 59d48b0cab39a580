"""The frame of `scripts/bench engine`: who is asked when, and what is shown of whom."""

from __future__ import annotations

from typing import Any

import pytest
from benchmarks import engine, frame
from benchmarks.engines.worker import MEASURES, WorkerError

ASKED: list[tuple[str, str]] = []


class Stand:
    """A worker that knows its figures; "broken" fails when it is asked."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        if name == "absent":
            raise WorkerError("not there")
        self.name = name
        self.facts = {"bytes_per_token": 100_000_000, "backend": "native"}

    def measure(self, what: str) -> Any:
        ASKED.append((self.name, what))
        if self.name == "broken":
            raise WorkerError("no room")
        if what == "steps":
            return [0.010, 0.015]
        return {"decode": 20.0 if self.name == "fast" else 10.0}.get(what, 0.5)

    def close(self) -> None:
        pass


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    ASKED.clear()
    monkeypatch.setattr(engine, "Worker", Stand)
    monkeypatch.setattr(frame, "read_bandwidth", lambda threads: 4e9)
    monkeypatch.setattr(engine, "REFERENCE", "slow")
    rows = [engine.Row(name, []) for name in ("fast", "slow", "broken", "absent")]
    machine = frame.Machine(1)
    engine.measure(rows, 2, machine, True)
    assert machine.readings == [4e9] * 3
    return [engine.document(row, machine.bandwidth) for row in rows]


def test_rounds_take_turns_and_who_fails_is_left_out(measured: list[dict[str, Any]]) -> None:
    decoding = [name for name, what in ASKED if what == "decode"]
    assert decoding == ["fast", "slow", "broken", "slow", "fast"]
    fast, slow, broken, absent = measured
    assert fast["samples"] == {what: fast["samples"][what] for what in MEASURES}
    assert all(len(had) == 2 for had in fast["samples"].values())
    assert (fast["bytes_per_second"], fast["read_bandwidth_share"]) == (2e9, 0.5)
    assert slow["step_costs"] == [1.0, pytest.approx(1.5)]
    assert broken["failed"] == "decode: no room"
    assert (absent["failed"], absent["median"]["decode"]) == ("not there", None)


def test_what_is_shown(measured: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    engine.show(measured)
    lines = capsys.readouterr().out.splitlines()
    fast = next(line for line in lines if line.startswith("fast"))
    assert fast.split()[:3] == ["fast", "20.0", "(2.00)"]
    assert fast.split()[-3:] == ["100.0", "2.0", "50%"]
    assert next(line for line in lines if line.startswith("V(n)")).split()[-2:] == ["1", "2"]
    assert "broken: not measured, decode: no room" in lines
    assert "absent: not measured, not there" in lines
