"""How long work reports itself, without knowing who watches.

The CLI draws bars, tests collect calls, a server ignores them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

Unit = Literal["bytes", "blocks", "tokens", "items"]


class Progress(Protocol):
    """One task per `key`; `total` None means that the end is not known."""

    def start(self, key: str, title: str, total: float | None, unit: Unit) -> None: ...

    def advance(self, key: str, amount: float = 1) -> None: ...

    def revise(self, key: str, title: str, total: float | None) -> None:
        """What is better known by now of a task that runs."""

    def finish(self, key: str) -> None: ...

    def note(self, message: str) -> None:
        """One line that a person should see: a source skipped, a resume, a wait."""


class NullProgress:
    """Reports to nobody."""

    def start(self, key: str, title: str, total: float | None, unit: Unit) -> None:
        pass

    def advance(self, key: str, amount: float = 1) -> None:
        pass

    def revise(self, key: str, title: str, total: float | None) -> None:
        pass

    def finish(self, key: str) -> None:
        pass

    def note(self, message: str) -> None:
        pass


@contextmanager
def bar(
    progress: Progress, key: str, title: str, total: float | None, unit: Unit
) -> Iterator[None]:
    """A task that ends with the block, however that ends."""
    progress.start(key, title, total, unit)
    try:
        yield
    finally:
        progress.finish(key)
