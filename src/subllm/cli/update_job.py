"""An update that runs: one job in a store, under `<home>/run`."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from subllm.cli import background, jobs
from subllm.cli.jobs import Job
from subllm.errors import LockedError

START_SECONDS = 60.0
LOWEST = 19


def log_path(home: Path) -> Path:
    """Where an update in the background writes what it says."""
    return home / "run" / "update.log"


def find(home: Path) -> Job | None:
    """The update that runs now."""
    return jobs.find(_record_path(home))


def refuse_second(home: Path) -> None:
    """Raises LockedError."""
    job = find(home)
    if job is not None:
        raise LockedError(
            f"an update runs already (pid {job.pid}); see 'subllm update --status', or --stop it"
        )


@contextmanager
def recorded(home: Path, what: str) -> Iterator[None]:
    """Make this process known as the one that updates `what` while the body runs; SIGTERM then
    is as Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with jobs.recorded(_record_path(home), "update", what):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def launch(home: Path, arguments: Sequence[str]) -> Job:
    """Start `subllm update ...` in the background, at the lowest priority, and wait until it is
    known. Raises StoreError when it ends before that."""
    return jobs.launch(
        "update",
        ["update", *arguments],
        _record_path(home),
        log_path(home),
        home,
        seconds=START_SECONDS,
        nice=LOWEST,
    )


def run_step(arguments: Sequence[str], home: Path) -> int:
    """`subllm ARGUMENTS` in a process of its own, whose memory goes with it; its exit status.
    Ctrl-C ends it as it would alone: the same command goes on where it was."""
    process = subprocess.Popen(
        [sys.executable, "-m", "subllm", *arguments],
        stdout=2,  # what it prints is no part of our result
        stdin=subprocess.DEVNULL,
        env=background.environment(home),
        process_group=0,  # a terminal's Ctrl-C comes once, from us
    )
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise


def _record_path(home: Path) -> Path:
    return home / "run" / "update.json"
