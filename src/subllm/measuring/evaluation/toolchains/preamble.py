"""Precompiled includes: half of compiling a short C++ program is reading standard headers.

Many programs start with the same includes. When some have come for the third time they
are compiled on their own, in the sandbox, and later programs use that; what the compiler
sees is the same text. Only lines that include a header in angle brackets, by a plain name,
are taken, so that no program has a say in what another one gets.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

_PATIENCE = 3  # uses before a preamble is compiled: it costs as much as three programs
_MOST = 24  # compiled ones: some 20 MB each
_INCLUDE = re.compile(r"[ \t]*#[ \t]*include[ \t]*<(?!/)(?!.*\.\.)[\w./+-]+>[ \t]*$")
_SKIPPED = re.compile(
    r"(?:[ \t]*(?://[^\n]*(?<!\\))?\n|[ \t]*/\*(?:(?!\*/).)*\*/[ \t]*\n)+", re.DOTALL
)

HEADER = "preamble.hpp"


def split(program: str) -> tuple[str, str]:
    """The includes that `program` starts with, and the program with those lines empty.

    Comments and empty lines may stand between them.
    """
    includes = []
    rest = []
    at = 0
    while at < len(program):
        skipped = _SKIPPED.match(program, at)
        if skipped:
            rest.append(skipped[0])
            at = skipped.end()
            continue
        line, _, _ = program[at:].partition("\n")
        if not _INCLUDE.match(line):
            break
        includes.append(line.strip())
        rest.append("\n")
        at += len(line) + 1
    return "".join(f"{line}\n" for line in includes), "".join(rest) + program[at:]


class Preambles:
    """Compiled preambles as directories to show to the compiler; thread-safe."""

    def __init__(self, directory: Path, compile: Callable[[str], bytes | None]) -> None:
        """`compile` makes a precompiled header of HEADER with the text that it is given."""
        self._directory = directory
        self._compile = compile
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()
        self._ready: dict[str, Path | None] = {}  # None: being made, or cannot be

    def find(self, preamble: str) -> Path | None:
        """A directory with HEADER and its compiled form, or None for now."""
        with self._lock:
            self._seen[preamble] += 1
            if preamble in self._ready or not preamble:
                return self._ready.get(preamble)
            if self._seen[preamble] < _PATIENCE or len(self._ready) >= _MOST:
                return None
            self._ready[preamble] = None
            number = len(self._ready)
        compiled = self._compile(preamble)
        if compiled is None:
            return None  # a header that is not there: the program itself will say so
        directory = self._directory / str(number)
        directory.mkdir(mode=0o755)
        (directory / HEADER).write_text(preamble)
        (directory / f"{HEADER}.gch").write_bytes(compiled)
        with self._lock:
            self._ready[preamble] = directory
        return directory
