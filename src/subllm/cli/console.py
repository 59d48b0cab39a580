"""What a person reads: results on stdout; notes, progress and errors on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import typer

Align = Literal["left", "right"]


def result(text: str, *, newline: bool = True) -> None:
    """A piece of the result, written at once."""
    sys.stdout.write(text + ("\n" if newline else ""))
    sys.stdout.flush()


def emit_json(value: Any) -> None:
    """The one JSON document of a `--json` run."""
    result(json.dumps(value, indent=2, ensure_ascii=False))


def note(message: str) -> None:
    """One line beside the result."""
    typer.echo(message, err=True)


def warn(message: str) -> None:
    typer.secho("warning: ", fg="yellow", bold=True, nl=False, err=True)
    typer.echo(message, err=True)


def error(message: str) -> None:
    """The one line that tells why a command failed."""
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(message, err=True)


def debugging() -> bool:
    """Whether SUBLLM_DEBUG asks for tracebacks."""
    return os.environ.get("SUBLLM_DEBUG", "") not in ("", "0")


def size(count: float) -> str:
    """Bytes for a person, decimal as file managers count: 491.4 MB."""
    from rich.filesize import decimal

    return decimal(int(count), precision=0 if count < 1_000_000 else 1)


def duration(seconds: float) -> str:
    """0.42 s, 12.3 s, 3 min 05 s, 2 h 07 min."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def table(
    columns: Sequence[str | tuple[str, Align]],
    rows: Iterable[Sequence[str]],
    *,
    title: str | None = None,
) -> None:
    """A table on stdout. It fits the terminal; into a pipe it goes uncut."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for column in columns:
        if isinstance(column, str):
            grid.add_column(column, overflow="fold")
        else:
            grid.add_column(column[0], justify=column[1], overflow="fold")
    for row in rows:
        grid.add_row(*row)
    width = None if sys.stdout.isatty() else 1000
    Console(file=sys.stdout, width=width, markup=False, highlight=False).print(grid)


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Aligned `name  value` lines on stdout; long values continue under themselves."""
    import shutil
    import textwrap

    kept = [(name, value) for name, value in pairs if value]
    indent = max((len(name) for name, _ in kept), default=0) + 2
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1000
    for name, value in kept:
        lines = textwrap.wrap(value, max(20, width - indent), break_long_words=False) or [""]
        for index, line in enumerate(lines):
            result((name if index == 0 else "").ljust(indent) + line)


def confirm(question: str, *, yes: bool) -> bool:
    """Ask on the terminal; without one, `yes` must have been given."""
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return typer.confirm(question, err=True)
