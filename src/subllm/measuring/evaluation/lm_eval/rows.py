"""The rows that a task asks: from the hub or a file, checked, digested, chosen."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from subllm.errors import BenchmarkError
from subllm.measuring.evaluation.domains import DomainTask
from subllm.models.acquire.splits import find_files
from subllm.models.tables.digest import RowsDigest
from subllm.models.tables.files import SUFFIXES, Row, read_rows
from subllm.models.tables.seeded import key
from subllm.progress import NullProgress, Progress


@dataclass(frozen=True)
class TaskRows:
    """source  file or directory, or "hub:REPOSITORY/CONFIG/SPLIT@REVISION"
    digest  sha256-<hex> over all rows of the split, worked examples first if there are any
    total   how many the split has
    chosen  rows to ask, in the split's order, by their place in it
    shots   worked examples
    """

    source: str
    digest: str
    total: int
    chosen: dict[int, Row]
    shots: list[Row]


def load_rows(
    task: DomainTask,
    data: Path | None,
    *,
    limit: int | None,
    seed: int,
    offline: bool = False,
    progress: Progress | None = None,
) -> TaskRows:
    """The rows of `data`, or of the task's set on the hub.

    Raises BenchmarkError for rows that are missing or of another form, TableError for a file
    that cannot be read, AcquireError.
    """
    progress = progress or NullProgress()
    origin = _hub(task, offline, progress) if data is None else _local(task, data)
    shots: list[Row] = []
    if task.shots:
        shots = list(itertools.islice(_read(origin, task, task.shots_split), task.shots))
        if len(shots) < task.shots:
            raise BenchmarkError(
                f"{origin.name} has {len(shots)} rows to show as worked examples, {task.name} "
                f"needs {task.shots}; add rows to its {task.shots_split} split"
            )
    digest = RowsDigest(origin.name)
    for row in shots:
        digest.add(row)
    rows: dict[int, Row] = {}
    total = 0
    for row in _read(origin, task, task.split):
        digest.add(row)
        if task.rows == "all" or total % 2:
            rows[total] = row
        total += 1
    if not rows:
        raise BenchmarkError(f"{origin.name} has no rows for {task.name}; add some")
    chosen = _choose(_choose(rows, task.most, 0), limit, seed)
    return TaskRows(
        source=origin.name,
        digest=str(digest),
        total=total,
        chosen=chosen,
        shots=shots,
    )


@dataclass(frozen=True)
class _Origin:
    """files  split -> (path, name) of each file that holds rows of it"""

    name: str
    files: Callable[[str], Iterator[tuple[Path, str]]]


def _read(origin: _Origin, task: DomainTask, split: str) -> Iterator[Row]:
    for path, name in origin.files(split):
        for number, row in enumerate(read_rows(path, name), 1):
            missing = [field for field in task.fields if _at(row, field) is None]
            if missing:
                raise BenchmarkError(
                    f"{name}, row {number}: no field {missing[0]!r}, only "
                    f"{', '.join(sorted(row)) or 'nothing'}; {task.name} needs rows as in "
                    f"{task.repo}"
                )
            yield row


def _at(row: Any, path: str) -> Any:
    """ "a.b": a field in a field; None where it is not there."""
    for name in path.split("."):
        row = row.get(name) if isinstance(row, dict) else None
    return row


def _choose(rows: dict[int, Row], count: int | None, seed: int) -> dict[int, Row]:
    """`count` of the rows, in their order: the same ones for the same seed."""
    if count is None or count >= len(rows):
        return rows
    chosen = sorted(rows, key=lambda index: key("asked", seed, index))[:count]
    return {index: rows[index] for index in sorted(chosen)}


def _local(task: DomainTask, path: Path) -> _Origin:
    def files(split: str) -> Iterator[tuple[Path, str]]:
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if _holds(file.name, split))
            if not found:
                raise BenchmarkError(
                    f"{path} has no file of the {split} split; put one there as {split}.jsonl"
                )
            yield from ((file, file.name) for file in found)
        elif not path.is_file():
            raise BenchmarkError(f"there is no {path}; correct --data")
        elif split != task.split:
            raise BenchmarkError(
                f"{task.name} shows worked examples first; give --data a directory with "
                f"{split}.jsonl and {task.split}.jsonl"
            )
        else:
            yield path, path.name

    return _Origin(str(path), files)


def _holds(name: str, split: str) -> bool:
    """train.jsonl, train-00000-of-00002.parquet"""
    return name.endswith(SUFFIXES) and name.startswith((f"{split}.", f"{split}-"))


def _hub(task: DomainTask, offline: bool, progress: Progress) -> _Origin:
    # Imported late: the hub's library takes a while, and a local file needs it not.
    from subllm.models.acquire.datasets import open_dataset

    opened = partial(open_dataset, progress=progress, offline=offline)

    def files(split: str) -> Iterator[tuple[Path, str]]:
        found, names = find_files(opened, task.repo, task.revision, config=task.config, split=split)
        if not names:
            raise BenchmarkError(
                f"{task.repo} has no files of {task.config}/{split} any more; give --data FILE"
            )
        for name in names:
            yield found.fetch(name), name

    source = f"hub:{task.repo}/{task.config}/{task.split}@{task.revision}"
    return _Origin(source, files)


def in_memory(splits: dict[str, Sequence[Row]]) -> Any:
    """The rows as the harness wants them, by split: tables of `datasets`.

    Raises BenchmarkError where one column holds values of several types.
    """
    import datasets

    try:
        return {split: datasets.Dataset.from_list(list(rows)) for split, rows in splits.items()}
    except (ValueError, TypeError) as error:  # pyarrow's errors are of these
        line = str(error).partition("\n")[0]
        raise BenchmarkError(f"the rows are not all of one form ({line}); correct them") from error
