"""The file of one measurement's records. A run that was killed goes on in it: what is there is
not measured again."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self, TypeVar

from pydantic import ValidationError

from subllm.errors import LockedError, StoreError
from subllm.measuring.evaluation.records import (
    FORMAT,
    LINE,
    Canonical,
    Compared,
    Line,
    Question,
    RunHeader,
    Sample,
    ScoredText,
    Summary,
)
from subllm.models.store.files import disk_errors
from subllm.models.store.manifest import canonical_json

_Kind = TypeVar("_Kind", Canonical, Sample, ScoredText, Compared, Question, Summary)


def read_records(path: Path) -> tuple[RunHeader, list[Line]]:
    """A whole file; a last line that was cut short is left out.

    Raises StoreError for a file that is missing, malformed or of another format.
    """
    with disk_errors(path):
        data = path.read_bytes()
    return _parse(path, data[: data.rfind(b"\n") + 1])


class RecordFile:
    """A records file that is being written; use as a context manager."""

    def __init__(self, directory: Path, header: RunHeader) -> None:
        """Opens `<task>-<language>-<model>-<key>.jsonl`, where an earlier run may have
        left lines. Raises LockedError when another process writes it, StoreError when it
        is malformed or cannot be written, DiskFullError."""
        self.key = header.key
        name = f"{header.task}-{header.language}-{header.model.name}-{self.key}.jsonl"
        self.path = directory / name.replace(":", "-")
        self.lines: list[Line] = []
        with disk_errors(self.path):
            directory.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = self.path.open("a+b")
            try:
                self._open(header)
            except BaseException:
                self._file.close()
                raise

    def append(self, line: Line) -> None:
        """One line more, in the file when this returns."""
        with disk_errors(self.path):
            self._file.write(canonical_json(line.model_dump(mode="json")) + b"\n")
            self._file.flush()
        self.lines.append(line)

    def of(self, kind: type[_Kind]) -> Iterator[_Kind]:
        """The lines of one kind."""
        return (line for line in self.lines if isinstance(line, kind))

    def conclude(self, figures: dict[str, Any], new: int, effort: dict[str, Any]) -> dict[str, Any]:
        """`figures` as the summary of a run, with the `effort` that its `new` lines took;
        where there are none, the summary of the earlier run that gave these figures."""
        if not new:
            for summary in reversed(list(self.of(Summary))):
                if figures.items() <= summary.figures.items():
                    return summary.figures
        figures = {**figures, **effort}
        self.append(Summary(run=self.key, figures=figures))
        return figures

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _open(self, header: RunHeader) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(f"another process writes {self.path}; wait for it to end") from None
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        self._file.truncate(whole)  # a line that a killed run left unfinished
        if whole:
            _, self.lines = _parse(self.path, data[:whole])
            return
        self._file.write(canonical_json(header.model_dump(mode="json")) + b"\n")
        self._file.flush()


def _parse(path: Path, data: bytes) -> tuple[RunHeader, list[Line]]:
    number = 1
    try:
        first, *others = data.splitlines()
        if json.loads(first).get("format") != FORMAT:
            raise StoreError(f"{path} has another format of records; move it away")
        header = RunHeader.model_validate_json(first)
        lines: list[Line] = []
        for line in others:
            number += 1
            lines.append(LINE.validate_json(line))
    except (ValueError, AttributeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise StoreError(
            f"{path}:{number}: no record ({reason}); move the file away to measure again"
        ) from error
    return header, lines
