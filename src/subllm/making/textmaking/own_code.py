"""Tasks from the user's code: its files in pieces, as they are calibrated on."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from subllm.making.calibration.files import FilesSource, read_code
from subllm.making.calibration.functions import functions
from subllm.making.calibration.source import Document
from subllm.making.textmaking.parse import LANGUAGES, parse
from subllm.making.textmaking.tasks import Form, Task, body_task, holes, own_tasks
from subllm.models.tables.seeded import key

_LONGEST_FILE = 24_000  # characters; of a longer one only pieces that parse by themselves
_FUNCTIONS = 2  # of a piece
_TAGS = {"c": "cpp"}  # C++'s grammar reads C


def code_tasks(root: Path, language: str, forms: Collection[Form], seed: int) -> Iterator[Task]:
    """In a seeded order. An eighth of the files (or parts of them) is left out, the one that
    `subllm tune` judges by. What no parser here knows (TypeScript) is passed over.

    Raises CalibrationError where there is no code of the language."""
    source = FilesSource(root, language, "train")
    for document in source.documents(seed):
        tag = _TAGS.get(document.tag or "", document.tag or "")
        if tag in LANGUAGES:
            yield from _of_piece(root, replace(document, tag=tag), forms)


def _of_piece(root: Path, piece: Document, forms: Collection[Form]) -> Iterator[Task]:
    code, tag = piece.text, piece.tag or ""
    source = Task(f"own-{key(piece.id, code):016x}", "file", tag, "rest")
    found: list[Task] = []
    if parse(code, tag) is not None:
        found += own_tasks(source, code, forms)
    elif "fim" in forms:
        before, after = _around(root, piece)
        if (before or after) and parse(before + code + after, tag) is not None:
            found += [replace(task, before=before, after=after) for task in holes(source, code)]
    if "function" in forms:
        for function in functions(code, tag)[:_FUNCTIONS]:
            if (task := body_task(source, function)) is not None:
                found.append(task)
    yield from found


def _around(root: Path, piece: Document) -> tuple[str, str]:
    """What of its file stands before and after a piece."""
    text = read_code(root.resolve() / piece.id.rpartition("#")[0])
    if text is None or len(text) > _LONGEST_FILE:
        return "", ""
    before, found, after = text.partition(piece.text)
    return (before, after) if found else ("", "")
