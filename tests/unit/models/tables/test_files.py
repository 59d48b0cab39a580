"""Tables: the same rows from every kind of file, and what is wrong with one said."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from subllm.errors import TableError
from subllm.models.tables.digest import RowsDigest
from subllm.models.tables.files import numbered_rows, read_rows

ROWS: list[dict[str, Any]] = [{"a": 1, "b": ["x", "é"]}, {"a": 2, "b": []}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def parquet(path: Path) -> bytes:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path.read_bytes()


def digest_of(rows: list[dict[str, Any]]) -> str:
    digest = RowsDigest("here")
    for row in rows:
        digest.add(row)
    return str(digest)


def test_one_table_in_every_kind_of_file(tmp_path: Path) -> None:
    kinds = {
        "a.jsonl": LINES,
        "a.json": json.dumps(ROWS, indent=1).encode(),
        "a.jsonl.gz": gzip.compress(LINES, mtime=0),
        "a.json.gz": gzip.compress(json.dumps(ROWS).encode()),
        "a.parquet": parquet(tmp_path / "made"),
    }
    digests = set()
    for name, data in kinds.items():
        path = tmp_path / name.replace(".", "-")  # as a cache names it
        path.write_bytes(data)
        rows = list(read_rows(path, name))
        assert rows == ROWS
        digests.add(digest_of(rows))
    assert digests == {digest_of(ROWS)} != {digest_of(ROWS[::-1])}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"a,b", r"a\.csv is none of \.parquet .*convert it to JSON lines"),
        ("a.jsonl", b"{", r"a\.jsonl cannot be read"),
        ("a.jsonl", b"[" * 100_000, r"a\.jsonl cannot be read"),
        ("a.jsonl", b"5", "has a row that is no object"),
        ("a.parquet", b"no", r"a\.parquet cannot be read"),
        ("a.jsonl.gz", b"no", r"a\.jsonl\.gz cannot be read"),
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0)[:-12], r"a\.jsonl\.gz cannot be read"),
        (
            "a.jsonl.gz",
            gzip.compress(LINES, mtime=0)[:10] + b"\xff" * 40,
            r"a\.jsonl\.gz cannot be read",
        ),
    ],
)
def test_files_that_are_no_table(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(TableError, match=message):
        list(read_rows(path, name))


def test_lines_have_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2}\n')
    assert list(numbered_rows(path)) == [(1, {"a": 1}), (3, {"a": 2})]
    with pytest.raises(TableError, match="cannot be read"):
        list(numbered_rows(tmp_path / "none.jsonl"))


def test_a_value_that_is_no_json() -> None:
    with pytest.raises(TableError, match="here has a value that is no JSON"):
        digest_of([{"a": float("nan")}])
