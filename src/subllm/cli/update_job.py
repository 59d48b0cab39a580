"""An update that runs: one in a store, known by a record under `<home>/run`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from subllm.cli import background
from subllm.cli.recover_job import Job
from subllm.errors import LockedError, StoreError
from subllm.files import write_whole

START_SECONDS = 60.0
LOWEST = 19


def log_path(home: Path) -> Path:
    """Where an update in the background writes what it says."""
    return home / "run" / "update.log"


def find(home: Path) -> Job | None:
    """The update that runs now."""
    try:
        job = Job(**json.loads(_record_path(home).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return job if background.alive(job.pid, job.created) else None


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
    import psutil

    path = _record_path(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    created = psutil.Process().create_time()
    job = Job("update", os.getpid(), created, time.time(), what)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    write_whole(path, json.dumps(asdict(job)).encode(), mode=0o600)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        signal.signal(signal.SIGTERM, before)


def launch(home: Path, arguments: Sequence[str]) -> Job:
    """Start `subllm update ...` in the background, at the lowest priority, and wait until it is
    known. Raises StoreError with its own last line when it ends before that."""
    log = log_path(home)
    process = background.spawn(["update", *arguments], log, home, cwd=str(Path.cwd()), nice=LOWEST)
    deadline = time.monotonic() + START_SECONDS
    try:
        while time.monotonic() < deadline:
            job = find(home)
            if job is not None and job.pid == process.pid:
                return job
            if process.poll() is not None:
                raise StoreError(f"the update did not start: {background.last_line(log)}")
            time.sleep(0.05)
        raise StoreError(f"the update did not start in {START_SECONDS:.0f} s; see {log}")
    except BaseException:
        if process.poll() is None:
            process.terminate()
        raise


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
