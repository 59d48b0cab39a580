"""Calibration sets of the catalog, fetched from the hub."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from subllm.errors import CalibrationError
from subllm.making.calibration import rows
from subllm.making.calibration.source import Document, Split, belongs, pieces
from subllm.models.acquire.datasets import DatasetFiles
from subllm.models.acquire.splits import Open, find_files
from subllm.models.catalog.schema import CalibrationSetEntry
from subllm.models.tables.files import read_rows

ROWS_READ = 50_000  # of one file; random samples of more would take minutes to read


class HubSource:
    """One set of the catalog. Files are fetched one by one, as many as are needed."""

    def __init__(self, entry: CalibrationSetEntry, open_dataset: Open, split: Split) -> None:
        self._entry = entry
        self._open = open_dataset
        self._split = split
        self.name = f"hub:{entry.name}"

    def documents(self, seed: int) -> Iterator[Document]:
        """Also raises AcquireError."""
        files, names = self._find()
        count = itertools.count()
        for name in names:
            table = itertools.islice(read_rows(files.fetch(name), name), ROWS_READ)
            yield from rows.sample(self._chosen(table, count), seed)

    def _chosen(self, table: Iterator[dict[str, Any]], count: Iterator[int]) -> Iterator[Document]:
        wanted = {"all": (0, 1), "even": (0,), "odd": (1,)}[self._entry.rows]
        for row, index in zip(table, count, strict=False):
            if index % 2 in wanted:
                for document in row_documents(self._entry, row, str(index)):
                    if belongs(document, self._split):
                        yield document

    def _find(self) -> tuple[DatasetFiles, list[str]]:
        """The files that hold the set's split, in the repository's order."""
        entry = self._entry
        files, names = find_files(
            self._open,
            entry.repo,
            entry.revision,
            config=entry.config,
            split=entry.split,
            globs=entry.files,
        )
        if not names:
            raise CalibrationError(
                f"{entry.repo} has no data files for {self.name}; correct its 'files' in the "
                "catalog"
            )
        return files, names


def row_documents(
    entry: CalibrationSetEntry, row: Mapping[str, Any], identity: str
) -> Iterator[Document]:
    """A row as `entry` maps it; none where a needed field is empty.

    Raises CalibrationError when the row has not the fields that the entry maps.
    """
    found: dict[str, Any] = {}
    for role, path in entry.fields.items():
        first = path.split(".")[0]
        if first not in row:
            raise CalibrationError(
                f"hub:{entry.name} has no field {first!r}, only {', '.join(sorted(row))}; "
                "correct its 'fields' in the catalog"
            )
        found[role] = _descend(row, path)
    text = {role: rows.clean(value) for role, value in found.items() if isinstance(value, str)}
    tag = entry.language if entry.domain == "code" else None
    document = _build(entry, found, text, identity, tag)
    if document is not None and document.text.strip():
        yield from pieces(document)


def _build(
    entry: CalibrationSetEntry,
    found: Mapping[str, Any],
    text: Mapping[str, str],
    identity: str,
    tag: str | None,
) -> Document | None:
    kind = entry.kind
    if kind == "code":
        return Document(identity, text.get("code", ""), text.get("docstring", "").strip(), tag)
    if kind == "text":
        return Document(identity, text.get("text", ""))
    if kind == "translation":
        source = text.get("source", "")
        if not source.strip():
            return None
        return Document(identity, text.get("target", ""), f"{entry.ask}\n\n{source}")
    if kind == "choice":
        return _choice(found, text, identity)
    instruction = rows.with_input(text.get("instruction", ""), text.get("input", ""))
    if not instruction.strip():
        return None
    return Document(identity, text.get("output", ""), instruction, tag)


def _choice(found: Mapping[str, Any], text: Mapping[str, str], identity: str) -> Document | None:
    """The question with lettered choices, answered by the right one."""
    choices = found.get("choices")
    if not isinstance(choices, list):
        return None
    letters = [chr(ord("A") + i) for i in range(len(choices))]
    lines = [
        f"{letter}. {rows.clean(str(choice))}"
        for letter, choice in zip(letters, choices, strict=True)
    ]
    answer = str(found.get("answer", ""))
    if answer.isdecimal() and int(answer) < len(lines):
        right = lines[int(answer)]
    elif answer in letters:
        right = lines[letters.index(answer)]
    else:
        return None
    return Document(identity, right, "\n".join([text.get("question", ""), *lines]))


def _descend(value: Any, path: str) -> Any:
    """ "a.b.0": keys and positions; a string on the way is read as JSON. None if absent."""
    for part in path.split("."):
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return None
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value
