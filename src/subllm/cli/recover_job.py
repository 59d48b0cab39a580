"""Recoveries that run: a job per name under `<home>/run`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from subllm.cli import jobs
from subllm.cli.jobs import Job
from subllm.errors import LockedError

if TYPE_CHECKING:
    from subllm.making.extraction.recipes.sections import Recipe

START_SECONDS = 180.0  # the text is tokenized first
_NICE = 10


def log_path(home: Path, name: str) -> Path:
    """Where a recovery in the background writes what it says."""
    return home / "run" / f"recover-{_slug(name)}.log"


def write_recipe(home: Path, name: str, recipe: Recipe) -> Path:
    """The recipe that a recovery in the background takes, whatever becomes of the user's file."""
    from subllm.making.extraction.recipes.write import to_toml

    path = home / "run" / f"recover-{_slug(name)}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_toml(recipe.sections()) + "\n", encoding="utf-8")
    return path


def find(home: Path, name: str) -> Job | None:
    """The recovery of `name` that runs now."""
    return jobs.find(_record_path(home, name))


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
    os.nice(_NICE)
    with jobs.recorded(_record_path(home, name), name, budget):
        yield


def launch(home: Path, name: str, arguments: Sequence[str]) -> Job:
    """Start `subllm recover NAME ...` in the background and wait until it learns. Raises StoreError
    when it ends before that."""
    return jobs.launch(
        "recovery",
        ["recover", name, *arguments],
        _record_path(home, name),
        log_path(home, name),
        home,
        seconds=START_SECONDS,
    )


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
    from subllm.models.store.workspace import slug

    return slug(name)
