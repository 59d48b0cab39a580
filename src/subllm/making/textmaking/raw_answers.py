"""Raw answers: what a base wrote for each task, before anything was judged.

A file of xz streams, one after the other, which `xz -dc` reads as one: JSON lines
    {"task": {...}, "by": ..., "ended": true, "tokens": 120, "text": ...}
with all of the task, so that texts can be made again from them alone. It only grows. What a
killed run left unfinished at its end is cut off by the next.
"""

from __future__ import annotations

import json
import lzma
import time
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from subllm.errors import TableError
from subllm.making.textmaking.tasks import Task
from subllm.models.store.files import disk_errors

SUFFIX = ".answers.xz"
_TOGETHER = 64  # answers of one stream: more pack better, and more are lost by a kill
_SECONDS = 60.0
_DEFAULTS = {f.name: f.default for f in fields(Task) if f.default is not MISSING}


@dataclass(frozen=True)
class RawAnswer:
    """by: what wrote it. ended: by the model or its end, not by a limit. tokens: of the answer
    alone."""

    task: Task
    by: str
    ended: bool
    tokens: int
    text: str


class RawAnswers:
    """The answers in a file and those to come; a context manager that writes the last ones."""

    def __init__(self, path: Path) -> None:
        """Raises TableError for a file that is something else, StoreError."""
        self.path = path
        self._waiting: list[bytes] = []
        self._since = time.monotonic()
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            data = path.read_bytes() if path.exists() else b""
        lines, whole = _streams(data)
        try:
            self._known = [_read(line) for line in lines]
        except (ValueError, TypeError, KeyError) as error:
            raise TableError(f"{path} holds no answers ({error}); move it away") from error
        if data and not whole:
            raise TableError(f"{path} holds no answers; give another file, or move it away")
        if whole < len(data):
            with disk_errors(path), path.open("r+b") as file:
                file.truncate(whole)

    def __iter__(self) -> Iterator[RawAnswer]:
        """In the order in which they ended."""
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def append(self, answer: RawAnswer) -> None:
        """Raises DiskFullError, StoreError; what could not be written is tried again."""
        self._known.append(answer)
        self._waiting.append(_line(answer))
        if len(self._waiting) >= _TOGETHER or time.monotonic() - self._since > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Raises as `append`."""
        if not self._waiting:
            return
        stream = lzma.compress(b"".join(self._waiting), lzma.FORMAT_XZ, preset=6)
        with disk_errors(self.path):
            before = self.path.stat().st_size if self.path.exists() else 0
            try:
                with self.path.open("ab") as file:
                    file.write(stream)
            except BaseException:  # half a stream would hide all that come after it
                with self.path.open("r+b") as file:
                    file.truncate(before)
                raise
        self._waiting = []
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()


def _line(answer: RawAnswer) -> bytes:
    task = {
        name: value
        for name, value in asdict(answer.task).items()
        if name not in _DEFAULTS or value != _DEFAULTS[name]
    }
    line = json.dumps({**asdict(answer), "task": task}, ensure_ascii=False)
    return line.encode("utf-8", "replace") + b"\n"


def _read(line: bytes) -> RawAnswer:
    row: dict[str, Any] = json.loads(line)
    return RawAnswer(**{**row, "task": Task(**row["task"])})


def _streams(data: bytes) -> tuple[list[bytes], int]:
    """The lines of the whole streams at the beginning of `data`, and where those end."""
    lines: list[bytes] = []
    at = 0
    while at < len(data):
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ)
        try:
            text = decoder.decompress(data[at:])
        except lzma.LZMAError:
            break
        if not decoder.eof:
            break
        lines += text.split(b"\n")[:-1]
        at = len(data) - len(decoder.unused_data)
    return lines, at
