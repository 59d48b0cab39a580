"""A user's own data set: JSON lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from subllm.errors import CalibrationError
from subllm.making.calibration import rows
from subllm.making.calibration.source import Document, Split, belongs
from subllm.models.tables.files import numbered_rows


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
        for number, row in numbered_rows(self._path):
            try:
                yield from rows.document_of(row, str(number))
            except ValueError as error:
                raise CalibrationError(f"{self._path}:{number}: {error}") from error
