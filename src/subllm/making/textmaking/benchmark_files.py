"""Files of benchmark problems: every text in them, to stay clear of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from subllm.models.tables.files import SUFFIXES, read_rows


@dataclass(frozen=True)
class Problem:
    """One problem of a benchmark: every text in it, at whatever depth."""

    file: str
    id: str
    texts: tuple[str, ...]


def problem_files(given: Iterable[Path]) -> Iterator[Path]:
    """The files themselves, and those in the directories. Raises FileNotFoundError."""
    for path in given:
        if not path.exists():
            raise FileNotFoundError(f"{path} is not there")
        inside = path.iterdir() if path.is_dir() else [path]
        yield from sorted(file for file in inside if file.name.endswith(SUFFIXES))


def read_problems(path: Path) -> list[Problem]:
    """Raises TableError for a file that cannot be read."""
    problems = []
    for number, row in enumerate(read_rows(path, path.name), 1):
        name = row.get("task_id", row.get("name", number))
        problems.append(Problem(path.name, str(name), tuple(texts_of(row))))
    return problems


def texts_of(value: object) -> Iterator[str]:
    """Every string in a value of JSON: MBPP has lists of tests, MultiPL-E of stop tokens."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts_of(part)
