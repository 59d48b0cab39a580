"""A table as plain text, Markdown and CSV.

Numbers stay numbers until they are written: text shows them as their column says, CSV in
full.
"""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Cell = str | int | float | None
Align = Literal["left", "right"]
WIDTH = 80
_GAP = "  "
_NARROWEST = 6  # of a text column that gives way


@dataclass(frozen=True)
class Column:
    """`form` is a format specification for numbers, as in `.3f`; None cells stay empty."""

    title: str
    align: Align = "left"
    form: str = ""

    def text(self, cell: Cell) -> str:
        if cell is None:
            return ""
        return cell if isinstance(cell, str) else format(cell, self.form)


def number(title: str, form: str) -> Column:
    """A column of numbers, to the right."""
    return Column(title, "right", form)


@dataclass(frozen=True)
class Table:
    """`note` says below what the figures mean. Raises ValueError for a row of another length
    than `columns`."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {len(row)} cells in {len(self.columns)} columns: {row}")

    def plain(self, width: int = WIDTH) -> str:
        """Aligned with spaces. Where it is wider than `width`, the widest columns of text are
        cut, marked by an ellipsis; numbers never are. Title and note are wrapped."""
        cells = [[column.title for column in self.columns], *self._texts()]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        self._narrow(widths, width)
        lines = _wrapped(self.title, width)
        for row in cells:
            padded = (
                _fitted(text, size, column.align)
                for text, size, column in zip(row, widths, self.columns, strict=True)
            )
            lines.append(_GAP.join(padded).rstrip())
        return "\n".join([*lines, *_wrapped(self.note, width)]) + "\n"

    def markdown(self) -> str:
        """A table of GitHub's Markdown, its title in bold above."""
        rule = ["---:" if column.align == "right" else "---" for column in self.columns]
        rows = [[column.title for column in self.columns], rule, *self._texts()]
        lines = ["| " + " | ".join(map(_escaped, row)) + " |" for row in rows]
        if self.title:
            lines = [f"**{self.title}**", "", *lines]
        if self.note:
            lines += ["", self.note]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """Titles, then rows; numbers in full, neither title nor note."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([column.title for column in self.columns])
        writer.writerows(self.rows)
        return out.getvalue()

    def _texts(self) -> list[list[str]]:
        return [
            [column.text(cell) for column, cell in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]

    def _narrow(self, widths: list[int], width: int) -> None:
        """Takes from the widest text column until all fit or none can give way."""
        text = [i for i, column in enumerate(self.columns) if column.align == "left"]
        while sum(widths) + len(_GAP) * (len(widths) - 1) > width:
            widest = max(text, key=lambda i: widths[i], default=-1)
            if widest < 0 or widths[widest] <= _NARROWEST:
                return
            widths[widest] -= 1


def _wrapped(text: str, width: int) -> list[str]:
    return [part for line in text.splitlines() for part in textwrap.wrap(line, max(20, width))]


def _fitted(text: str, size: int, align: Align) -> str:
    if len(text) > size:
        return text[: size - 1] + "…"
    return text.rjust(size) if align == "right" else text.ljust(size)


def _escaped(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
