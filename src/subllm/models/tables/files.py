"""Rows of the files that data sets come in: Parquet, JSON lines, a JSON list."""

from __future__ import annotations

import gzip
import importlib
import itertools
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from subllm.errors import MissingExtraError, TableError

Row = dict[str, Any]
SUFFIXES = (".parquet", ".jsonl", ".json", ".jsonl.gz", ".json.gz")
_BATCH = 1024


def read_rows(path: Path, name: str) -> Iterator[Row]:
    """The rows of a file whose name in its repository is `name`.

    Raises TableError for an unknown kind of file or a damaged one, MissingExtraError for
    Parquet without pyarrow.
    """
    if not name.endswith(SUFFIXES):
        raise TableError(
            f"{name} is none of {' '.join(SUFFIXES)}; convert it to JSON lines or name another"
        )
    try:
        for row in _parquet(path) if name.endswith(".parquet") else _json(path, name):
            if not isinstance(row, dict):
                raise TableError(f"{name} has a row that is no object; use another set")
            yield row
    except (ValueError, RecursionError, OSError, EOFError, zlib.error) as error:
        raise TableError(f"{name} cannot be read ({error}); fetch it again") from error


def numbered_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The objects of a file of JSON lines, each with the number of its line, from 1.

    Raises TableError, naming the line that is no object.
    """
    number = 0
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _object(line)
    except (ValueError, RecursionError) as error:
        raise TableError(f"{path}:{number}: {error}") from error
    except OSError as error:
        raise TableError(f"{path} cannot be read ({error.strerror})") from error


def _object(line: bytes) -> Row:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"not valid JSON ({error}); each line is one object") from error
    if not isinstance(row, dict):
        raise ValueError("not a JSON object; each line is one")
    return row


def _parquet(path: Path) -> Iterator[Any]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtraError(
            "this set is in Parquet files, which need pyarrow: pip install 'subllm[hub-sets]'"
        ) from error
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH):
            yield from batch.to_pylist()


def _json(path: Path, name: str) -> Iterator[Any]:
    with path.open("rb") as raw:
        file = gzip.GzipFile(fileobj=raw) if name.endswith(".gz") else raw
        lines = (line for line in file if line.strip())
        first = next(lines, b"")
        if first.lstrip().startswith(b"["):
            yield from json.loads(first + b"".join(lines))
            return
        for line in itertools.chain([first] if first else [], lines):
            yield json.loads(line)
