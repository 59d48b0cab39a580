"""Updates that a server begins when nobody asks."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from subllm.serving.server import idle
from subllm.serving.server.idle import EVERY, QUIET, IdleUpdates
from unit.serving.server.connections import COMPLETIONS
from unit.serving.server.tiny import Live, live, shelf


class Updates:
    """Those that were begun; the last runs on while `runs`."""

    def __init__(self) -> None:
        self.begun = 0
        self.runs = False
        self.now = 0.0
        self.idle = IdleUpdates(self.begin, clock=lambda: self.now)

    def begin(self) -> Callable[[], bool]:
        self.begun += 1
        return lambda: self.runs

    def after(self, seconds: float) -> int:
        """How many were begun when so much more time has passed."""
        self.now += seconds
        self.idle.look()
        return self.begun


def ask(running: Live) -> None:
    assert running.post(COMPLETIONS, prompt="x", max_tokens=0, model="auto").status_code == 200


def test_only_when_nobody_asks() -> None:
    updates = Updates()
    with live(shelf(), planned=updates.idle.saw) as running:
        assert updates.after(QUIET - 1) == 0
        ask(running)
        assert updates.after(QUIET - 1) == 0
        assert updates.after(1) == 1


def test_once_a_day_and_one_at_a_time() -> None:
    updates = Updates()
    assert updates.after(QUIET) == 1
    assert updates.after(EVERY - 1) == 1
    updates.runs = True
    assert updates.after(1) == 1
    updates.runs = False
    assert updates.after(0) == 2


def test_what_cannot_be_started_is_tried_the_next_day() -> None:
    def fails() -> Callable[[], bool]:
        raise OSError("no more processes")

    now = [0.0]
    broken = IdleUpdates(fails, clock=lambda: now[0])
    now[0] = QUIET
    broken.look()


def test_it_looks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "_LOOK", 0.001)
    monkeypatch.setattr(idle, "QUIET", 0.0)
    begun = threading.Event()

    def begin() -> Callable[[], bool]:
        begun.set()
        return lambda: False

    with IdleUpdates(begin):
        assert begun.wait(60)
