"""Recoveries that run: a record per name under `<home>/run`, believed while its process lives."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from subllm.cli import background
from subllm.errors import LockedError, ServerError, StoreError
from subllm.files import write_whole

START_SECONDS = 180.0  # the text is tokenized first
STOP_SECONDS = 600.0  # a step, a look at held-out text, packing
_NICE = 10


@dataclass(frozen=True)
class Job:
    """The process that recovers `name`; `created` as `background.alive` wants it, `started` in
    seconds since the epoch, `budget` as it was given."""

    name: str
    pid: int
    created: float
    started: float
    budget: str


def log_path(home: Path, name: str) -> Path:
    """Where a recovery in the background writes what it says."""
    return home / "run" / f"recover-{_slug(name)}.log"


def find(home: Path, name: str) -> Job | None:
    """The recovery of `name` that runs now."""
    try:
        job = Job(**json.loads(_record_path(home, name).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return job if background.alive(job.pid, job.created) else None


def refuse_second(home: Path, name: str) -> None:
    """Raises LockedError while another process recovers or tunes what `name` is or becomes."""
    job = find(home, name)
    if job is not None:
        raise LockedError(
            f"{name} is being recovered already (pid {job.pid}); see --status, or --stop it"
        )


@contextmanager
def recorded(home: Path, name: str, budget: str) -> Iterator[None]:
    """Make this process known as the one that recovers `name` while the body runs, and let it
    give way to others."""
    import psutil

    path = _record_path(home, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    job = Job(name, os.getpid(), psutil.Process().create_time(), time.time(), budget)
    os.nice(_NICE)
    write_whole(path, json.dumps(asdict(job)).encode(), mode=0o600)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def launch(home: Path, name: str, arguments: Sequence[str]) -> Job:
    """Start `subllm recover NAME ...` in the background and wait until it learns.

    Raises StoreError with its own last line when it ends before that.
    """
    log = log_path(home, name)
    process = background.spawn(["recover", name, *arguments], log, home, cwd=str(Path.cwd()))
    deadline = time.monotonic() + START_SECONDS
    try:
        while time.monotonic() < deadline:
            job = find(home, name)
            if job is not None and job.pid == process.pid:
                return job
            if process.poll() is not None:
                raise StoreError(f"the recovery did not start: {background.last_line(log)}")
            time.sleep(0.05)
        raise StoreError(f"the recovery did not start in {START_SECONDS:.0f} s; see {log}")
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


class Stop:
    """Whether Ctrl-C or SIGTERM asked to stop. The second time it interrupts at once."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told = False
        self.asked = False

    def __call__(self) -> bool:
        if self.asked and not self._told:
            self._say()
        return self.asked

    @contextmanager
    def listening(self) -> Iterator[None]:
        before = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        with suppress(RuntimeError):  # in the middle of another line to the same stream: later
            self._say()

    def _say(self) -> None:
        self._tell(
            "stopping after this step with what was reached; once more stops at once, at "
            "the last checkpoint"
        )
        self._told = True


def _record_path(home: Path, name: str) -> Path:
    return home / "run" / f"recover-{_slug(name)}.json"


def _slug(name: str) -> str:
    from subllm.store.workspace import slug

    return slug(name)
