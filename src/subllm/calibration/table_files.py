"""Rows of the files that data sets come in: Parquet, JSON lines, a JSON list."""

from __future__ import annotations

import gzip
import importlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from subllm.errors import CalibrationError

SUFFIXES = (".parquet", ".jsonl", ".json", ".jsonl.gz", ".json.gz")
_BATCH = 1024


def read_rows(path: Path, name: str) -> Iterator[dict[str, Any]]:
    """The rows of a file whose name in its repository is `name`.

    Raises CalibrationError for an unknown kind of file, a damaged one, or Parquet
    without pyarrow.
    """
    if not name.endswith(SUFFIXES):
        raise CalibrationError(f"{name} is none of {' '.join(SUFFIXES)}; correct the catalog")
    try:
        for row in _parquet(path) if name.endswith(".parquet") else _json(path, name):
            if not isinstance(row, dict):
                raise CalibrationError(f"{name} has a row that is no object; use another set")
            yield row
    except (ValueError, OSError, EOFError) as error:
        raise CalibrationError(f"{name} cannot be read ({error}); fetch it again") from error


def _parquet(path: Path) -> Iterator[Any]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise CalibrationError(
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
