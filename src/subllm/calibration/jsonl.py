"""A user's own data set: JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from subllm.calibration import rows
from subllm.calibration.source import Document, Split, belongs
from subllm.errors import CalibrationError


class JsonlSource:
    """Every line is an object of one of the shapes in `rows.SHAPES`."""

    def __init__(self, path: Path, split: Split) -> None:
        self._path = path.resolve()
        self._split = split
        self.name = f"jsonl:{self._path}"

    def documents(self, seed: int) -> Iterator[Document]:
        """Reads the whole file first, so that a malformed line is always found."""
        chosen = (document for document in self._rows() if belongs(document, self._split))
        yield from rows.sample(chosen, seed)

    def _rows(self) -> Iterator[Document]:
        number = 0
        try:
            with self._path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield from _document(line, number)
        except (ValueError, RecursionError) as error:
            raise CalibrationError(f"{self._path}:{number}: {error}") from error
        except OSError as error:
            raise CalibrationError(f"{self._path} cannot be read ({error.strerror})") from error


def _document(line: bytes, number: int) -> Iterator[Document]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"not valid JSON ({error}); each line is one object") from error
    if not isinstance(row, dict):
        raise ValueError("not a JSON object; each line is one")
    yield from rows.document_of(row, str(number))
