"""Long commands that others may look at and stop: known by a record each, which is believed while
its process lives."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from subllm.cli import background
from subllm.errors import ServerError, StoreError
from subllm.files import write_whole

STOP_SECONDS = 600.0  # a step, a look at held-out text, packing


@dataclass(frozen=True)
class Job:
    """The process that works on `name`; `created` as `background.alive` wants it, `started` in
    seconds since the epoch, `budget` as it was given."""

    name: str
    pid: int
    created: float
    started: float
    budget: str


def find(record: Path) -> Job | None:
    """The job of that record, if it runs now."""
    try:
        job = Job(**json.loads(record.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return job if background.alive(job.pid, job.created) else None


@contextmanager
def recorded(record: Path, name: str, budget: str) -> Iterator[None]:
    """Make this process known while the body runs."""
    record.parent.mkdir(parents=True, exist_ok=True)
    job = Job(name, os.getpid(), background.began(), time.time(), budget)
    write_whole(record, json.dumps(asdict(job)).encode(), mode=0o600)
    try:
        yield
    finally:
        record.unlink(missing_ok=True)


def launch(
    what: str,
    arguments: Sequence[str],
    record: Path,
    log: Path,
    home: Path,
    *,
    seconds: float,
    nice: int = 0,
) -> Job:
    """Start `subllm ARGUMENTS` in the background and wait, for so many seconds at most, until it
    has made itself known; `what` it is, in errors.

    Raises StoreError with its own last line when it ends before that.
    """
    process = background.spawn(arguments, log, home, cwd=str(Path.cwd()), nice=nice)
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            job = find(record)
            if job is not None and job.pid == process.pid:
                return job
            if process.poll() is not None:
                raise StoreError(f"the {what} did not start: {background.last_line(log)}")
            time.sleep(0.05)
        raise StoreError(f"the {what} did not start in {seconds:.0f} s; see {log}")
    except BaseException:
        # Also on Ctrl-C: nobody would know of a process that was never announced.
        if process.poll() is None:
            process.terminate()
        raise


def stop(job: Job) -> bool:
    """Ask it to stop at what it reached, and wait; whether it has ended."""
    try:
        os.kill(job.pid, signal.SIGINT)
    except ProcessLookupError:
        return True
    except PermissionError as error:
        raise ServerError(f"process {job.pid} belongs to another user; stop it as that user") from (
            error
        )
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        if not background.alive(job.pid, job.created):
            return True
        time.sleep(0.1)
    return False
