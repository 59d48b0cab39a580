"""Progress for a person: bars with rate and ETA on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from subllm.cli import console
from subllm.progress import Unit

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars
    from rich.progress import Task, TaskID
    from rich.text import Text

SECONDS_BETWEEN_LINES = 5.0
TITLE_WIDTH = 34


@dataclass
class _Task:
    """State of one key. Rates are means over its whole time."""

    title: str
    total: float | None
    unit: Unit
    done: float = 0.0
    began: float = field(default_factory=lambda: time.monotonic())
    line_at: float = field(default_factory=lambda: time.monotonic())
    bar: TaskID | None = None

    def describe(self, now: float) -> str:
        """`210.0/491.4 MB  35.1 MB/s  8 s left`, of what is known."""
        parts = [amounts(self.done, self.total, self.unit)]
        seconds = now - self.began
        if self.done > 0 and seconds > 0:
            per_second = self.done / seconds
            parts.append(rate(per_second, self.unit))
            if self.total is not None:
                left = max(0.0, self.total - self.done) / per_second
                parts.append(f"{time_left(left)} left")
        return "  ".join(parts)


class RichProgress:
    """Implements `subllm.progress.Progress` on stderr. Use as a context manager, so that
    an error or Ctrl-C leaves the terminal whole. `quiet` keeps notes and drops the rest."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._lock = threading.Lock()
        self._tasks: dict[str, _Task] = {}
        self._quiet = quiet
        self._bars: RichBars | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def start(self, key: str, title: str, total: float | None, unit: Unit) -> None:
        task = _Task(title, total, unit)
        with self._lock:
            self._tasks[key] = task
        if self._quiet:
            return
        if sys.stderr.isatty():
            bars = self._live()
            task.bar = bars.add_task(_shorten(title), total=total, unit=unit)

    def advance(self, key: str, amount: float = 1) -> None:
        now = time.monotonic()
        with self._lock:
            task = self._tasks[key]
            task.done += amount
            due = now - task.line_at >= SECONDS_BETWEEN_LINES
            if due:
                task.line_at = now
        if self._bars is not None and task.bar is not None:
            self._bars.advance(task.bar, amount)
        elif due and not self._quiet:
            console.note(f"{task.title}: {task.describe(now)}")

    def revise(self, key: str, title: str, total: float | None) -> None:
        with self._lock:
            task = self._tasks[key]
            task.title, task.total = title, total
        if self._bars is not None and task.bar is not None:
            self._bars.update(task.bar, description=_shorten(title), total=total)

    def finish(self, key: str) -> None:
        with self._lock:
            task = self._tasks.pop(key)
            last = not self._tasks
        if self._bars is not None and task.bar is not None:
            self._bars.remove_task(task.bar)
            if last:
                self._bars.stop()
                self._bars = None
        seconds = time.monotonic() - task.began
        if not self._quiet and seconds >= 1:
            done = amounts(task.done, None, task.unit)
            console.note(f"{task.title}: {done} in {console.duration(seconds)}")

    def note(self, message: str) -> None:
        bars = self._bars
        if bars is None:
            console.note(message)
        else:
            bars.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def _live(self) -> RichBars:
        """The live display, begun with the first task."""
        if self._bars is None:
            self._bars = _new_bars()
            self._bars.start()
        return self._bars


def amounts(done: float, total: float | None, unit: Unit) -> str:
    """`210.0/491.4 MB`, `12/24 blocks`, `12 blocks`."""
    if unit != "bytes":
        return f"{done:,.0f} {unit}" if total is None else f"{done:,.0f}/{total:,.0f} {unit}"
    if total is None:
        return console.size(done)
    whole, name = console.size(total).split(" ", 1)
    scale = total / float(whole.replace(",", "")) if total else 1.0
    return f"{done / scale:.{1 if '.' in whole else 0}f}/{whole} {name}"


def rate(per_second: float, unit: Unit) -> str:
    """`35.1 MB/s`, `512 tokens/s`, `0.25 blocks/s`."""
    if unit == "bytes":
        return f"{console.size(per_second)}/s"
    number = f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"
    return f"{number} {unit}/s"


def time_left(seconds: float) -> str:
    """`8 s`, `3 min 05 s`: an estimate has no decimals."""
    return f"{seconds:.0f} s" if seconds < 60 else console.duration(seconds)


def _shorten(title: str) -> str:
    return title if len(title) <= TITLE_WIDTH else title[: TITLE_WIDTH - 1] + "…"


def _new_bars() -> RichBars:
    """Columns that fit 80 characters: title, bar, amounts, rate, time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text as RichText

    class Amounts(ProgressColumn):
        def render(self, task: Task) -> Text:
            unit: Any = task.fields["unit"]
            text = amounts(task.completed, task.total, unit)
            if task.speed:
                text += f"  {rate(task.speed, unit)}"
            return RichText(text)

    def fixed() -> Column:
        return Column(no_wrap=True)  # so that only the bar gives way

    return Progress(
        TextColumn("{task.description}", markup=False, table_column=fixed()),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        Amounts(table_column=fixed()),
        TimeRemainingColumn(compact=True, table_column=fixed()),
        console=Console(stderr=True),
        expand=True,
        transient=True,
    )
