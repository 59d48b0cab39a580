"""Where the filling of a hole ends: where it says again what follows, or leaves the hole's block.

Small models do not stop at a hole's end, they go on with the lines that come after it, or others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import chain, islice

from subllm.models.text.block_end import BlockEnd

TELLING = 6
"""Letters and digits of the lines that must be repeated before a filling is taken to be over. Of
holes cut at random from files 0.9 % of Python's, 0.4 of JavaScript's and 2.6 of C++'s hold as much
of what follows them (`scripts/bench ends`)."""
_LINES = 3


@dataclass(frozen=True)
class Hole:
    """line   what stands before the hole in its line
    after  the text after it
    above  the last line before these that is not blank"""

    line: str
    after: str
    above: str = ""

    @classmethod
    def between(cls, before: str, after: str) -> Hole:
        start = before.rfind("\n") + 1
        above = before[:start].rstrip()
        return cls(before[start:], after, above[above.rfind("\n") + 1 :])


class _Match(Enum):
    NO = 0
    BEGUN = 1  # so far
    SOME = 2  # enough, if nothing else comes
    WHOLE = 3


class HoleEnd:
    """Watches the filling of one hole, as it comes. Text that may be what follows the hole is held
    back. Lines are the same whatever blank lines or spaces are behind them.
    """

    def __init__(self, hole: Hole) -> None:
        rest, _, lines = hole.after.partition("\n")
        blank = not hole.line.strip()
        self._head = hole.line if blank else ""
        self._rest = rest.rstrip()
        self._inside = bool(self._rest) and not blank
        """Whether the hole is inside a line, which goes on behind it."""
        self._blank: list[str] | None = None if self._rest else []
        """Blank lines and spaces that came last, where they go with what is cut: before the held
        text, and no part of it, so that it stays short however many they are."""
        first = [self._head + self._rest] if self._rest else []
        following = chain(() if self._inside else first, _lines(lines))
        below = next(filter(str.strip, following), "")
        self._block = BlockEnd(hole.line, hole.above, below)
        self._known = list(islice(_telling([*first, lines]), _LINES))
        self._held = ""
        self._before: str | None = hole.line if blank else None
        """What stands before the held text in its line; None: text."""
        self._done = False

    def push(self, text: str) -> tuple[str, bool]:
        """(text that may be shown, whether the filling is over). Nothing is shown after that."""
        if self._done:
            return "", True
        return self._within(*self._block.push(text))

    def finish(self) -> tuple[str, bool]:
        """As `push`, when nothing more comes."""
        if self._done:
            return "", False
        shown, over = self._within(*self._block.finish())
        if over:
            return shown, True
        rest, over = self._last()
        return shown + rest, over

    def _within(self, text: str, left: bool) -> tuple[str, bool]:
        """Of text that is in the block, and whether what comes after it has left it."""
        shown, over = self._said(text)
        if over or not left:
            return shown, over
        rest, over = self._last()
        self._done = True
        return shown + (rest if over else self._closed(rest)), True

    def _said(self, text: str) -> tuple[str, bool]:
        if not self._known:
            return text, False
        self._held += text
        for at in self._places():
            found = self._match(at)
            if found is _Match.WHOLE:
                return self._cut(at), True
            if found is not _Match.NO:
                return self._let_go(at), False
        return self._let_go(len(self._held)), False

    def _last(self) -> tuple[str, bool]:
        for at in self._places() if self._known else ():
            if self._match(at) is _Match.SOME:
                return self._cut(at), True
        return "".join(self._blank or ()) + self._held, False

    def _places(self) -> Iterator[int]:
        """Where what follows may begin in the held text."""
        begins = self._rest[0] if self._inside else "\n"
        if not self._inside and self._before is not None:
            yield 0
        at = self._held.find(begins)
        while at >= 0:
            yield at if self._inside else at + 1
            at = self._held.find(begins, at + 1)

    def _match(self, at: int) -> _Match:
        before = self._before if at == 0 and not self._inside else None
        *lines, last = ((before or "") + self._held[at:]).split("\n")
        same = 0
        for number, line in enumerate(lines):
            if number and not line.strip():
                continue
            if line.rstrip() != self._known[same]:
                return _Match.NO
            same += 1
            if same == len(self._known):
                return _Match.WHOLE
        enough = 2 if self._inside else 1
        known = self._known[same]
        if last.rstrip() == known:
            same += 1
        elif last.strip() and not known.startswith(last):
            return _Match.NO
        return _Match.SOME if same >= enough else _Match.BEGUN

    def _cut(self, at: int) -> str:
        """What remains. Text that goes on in the hole's last line keeps what is before it there."""
        self._done = True
        if self._blank is not None:
            return self._shown(self._held[:at].rstrip())
        return self._held[: at + len(self._head) if at or self._before == "" else 0]

    def _closed(self, text: str) -> str:
        """The last text of a filling that goes no further, before what follows."""
        if self._blank is not None:
            return text.rstrip()
        return text if self._inside else f"{text}\n{self._head}"

    def _let_go(self, at: int) -> str:
        """Shows what comes before `at`."""
        text, self._held = self._held[:at], self._held[at:]
        if text:
            self._before = "" if text.endswith("\n") else None
        if self._blank is None:
            return text
        shown = self._shown(text.rstrip())
        self._blank.append(text[len(text.rstrip()) :])
        return shown

    def _shown(self, text: str) -> str:
        """With the blank lines before it."""
        if text and self._blank:
            text = "".join(self._blank) + text
            self._blank.clear()
        return text


def _telling(texts: Iterable[str]) -> Iterator[str]:
    """The lines that are not blank, until they tell."""
    told = 0
    for line in chain.from_iterable(map(_lines, texts)):
        if line.strip():
            yield line.rstrip()
            told += sum(map(str.isalnum, line))
            if told >= TELLING:
                return


def _lines(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1
