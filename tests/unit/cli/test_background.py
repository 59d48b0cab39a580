"""Which process a record means."""

from __future__ import annotations

import os

import psutil
import pytest

from subllm.cli import background


def test_a_clock_that_is_set_ends_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux tells when the system started by the time of day, and moves it with that: by a second
    as clocks drift, by more where a machine slept."""
    created = background.began()
    assert background.alive(os.getpid(), created)
    if not psutil.LINUX:
        return
    started = psutil.boot_time()
    for step in (-1, 1, 2000):
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda step=step: started + step)
        assert psutil.boot_time() == started + step
        assert background.alive(os.getpid(), created)


def test_another_process_of_the_same_number_is_not_it() -> None:
    assert not background.alive(os.getpid(), background.began() - 5)
    assert not background.alive(os.getpid(), background.began() + 5)
