"""Sets of the hub: which files, which rows, which fields; over a hub on this machine."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from fakes.hub import FakeHub
from huggingface_hub import constants

from subllm.errors import (
    AcquireError,
    CalibrationError,
    MissingExtraError,
    NetworkError,
    OfflineError,
    TableError,
)
from subllm.making.calibration import hub_sets
from subllm.making.calibration.hub_sets import HubSource, row_documents
from subllm.making.calibration.source import Document
from subllm.models.acquire.datasets import open_dataset
from subllm.models.acquire.hub_client import HubClient
from subllm.models.acquire.splits import CONVERTED
from subllm.models.catalog.loader import load_catalog
from subllm.models.catalog.schema import CalibrationSetEntry
from subllm.models.tables import files
from subllm.progress import NullProgress

NAME = "org/set"
CATALOG = load_catalog()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as fake:
        yield fake


def entry(**changes: Any) -> CalibrationSetEntry:
    values = {
        "name": "s",
        "domain": "code",
        "language": "python",
        "repo": NAME,
        "files": ("data/train-*.parquet",),
        "kind": "code",
        "fields": {"code": "code"},
    }
    return CalibrationSetEntry.model_validate(values | changes)


def source(hub: FakeHub, offline: bool = False, split: Any = "all", **changes: Any) -> HubSource:
    client = HubClient(endpoint=hub.url, probe_seconds=60)
    opened = partial(open_dataset, progress=NullProgress(), offline=offline, client=client)
    return HubSource(entry(**changes), opened, split)


def texts(found: HubSource) -> set[str]:
    return {document.text for document in found.documents(0)}


def parquet(*rows: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), buffer)
    return buffer.getvalue()


def lines(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_parquet_files_come_one_by_one(hub: FakeHub) -> None:
    first = parquet({"code": "one"}, {"code": "two"})
    second = parquet({"code": "three"})
    files = {"data/train-0.parquet": first, "data/train-1.parquet": second}
    hub.add_repo(NAME, {**files, "data/test-0.parquet": parquet({"code": "no"})}, "dataset")
    documents = source(hub).documents(0)
    assert {next(documents).text, next(documents).text} == {"one", "two"}
    assert hub.sent("data/train-1.parquet") == 0
    assert next(documents) == Document("2", "three", tag="python")
    assert hub.sent("data/test-0.parquet") == 0


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("train.jsonl", lines({"code": "a"}, {"code": "b"})),
        ("train.json", b"[" + lines({"code": "a"}).strip() + b',\n{"code": "b"}]'),
        ("train.json", lines({"code": "a"}, {"code": "b"})),
        ("train.json.gz", gzip.compress(lines({"code": "a"}, {"code": "b"}), mtime=0)),
    ],
)
def test_kinds_of_files(hub: FakeHub, name: str, data: bytes) -> None:
    hub.add_repo(NAME, {name: data}, "dataset")
    assert texts(source(hub, files=(name,))) == {"a", "b"}


def test_files_are_found_by_config_and_split(hub: FakeHub) -> None:
    files = {
        "main/train-00.parquet": parquet({"code": "right"}),
        "main/test-00.parquet": parquet({"code": "wrong"}),
        "other/train-00.parquet": parquet({"code": "wrong"}),
    }
    hub.add_repo(NAME, files, "dataset")
    assert texts(source(hub, files=(), config="main")) == {"right"}


def test_else_in_the_converted_branch(hub: FakeHub) -> None:
    hub.add_repo(NAME, {"script.py": b"raise"}, "dataset")
    with pytest.raises(CalibrationError, match="org/set has no data files for hub:s"):
        texts(source(hub, files=(), config="fr-en"))
    converted = {"fr-en/train/0000.parquet": parquet({"code": "converted"})}
    hub.add_repo(NAME, converted, "dataset", branch=CONVERTED)
    assert texts(source(hub, files=(), config="fr-en")) == {"converted"}
    with pytest.raises(CalibrationError, match="org/set has no data files for hub:s"):
        texts(source(hub, files=(), config="de-en"))
    with pytest.raises(CalibrationError, match="correct its 'files'"):
        texts(source(hub, files=("nothing-*.parquet",)))


def test_what_was_fetched_serves_without_the_hub(hub: FakeHub) -> None:
    with pytest.raises(OfflineError, match="org/set is not in the Hugging Face cache"):
        texts(source(hub, offline=True))
    hub.add_repo(NAME, {"data/train-0.parquet": parquet({"code": "kept"})}, "dataset")
    assert texts(source(hub)) == {"kept"}
    count = len(hub.requests)
    assert texts(source(hub, offline=True)) == {"kept"}
    assert len(hub.requests) == count
    hub.status = 503
    assert texts(source(hub)) == {"kept"}


def test_a_hub_that_does_not_help(hub: FakeHub) -> None:
    with pytest.raises(AcquireError, match="no repository org/set"):
        texts(source(hub))
    hub.status = 503
    with pytest.raises(NetworkError):
        texts(source(hub))


def test_damaged_files_are_named(hub: FakeHub) -> None:
    files = {"a.parquet": b"no", "b.jsonl": b"{", "c.csv": b"x", "d.jsonl": b"[5]"}
    hub.add_repo(NAME, files, "dataset")
    for name in ("a.parquet", "b.jsonl"):
        with pytest.raises(TableError, match=f"{name} cannot be read"):
            texts(source(hub, files=(name,)))
    with pytest.raises(TableError, match=r"c\.csv is none of \.parquet"):
        texts(source(hub, files=("c.csv",)))
    with pytest.raises(TableError, match=r"d\.jsonl has a row that is no object"):
        texts(source(hub, files=("d.jsonl",)))


def test_parquet_needs_pyarrow(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    hub.add_repo(NAME, {"data/train-0.parquet": parquet({"code": "x"})}, "dataset")
    monkeypatch.setattr(files.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'subllm\[hub-sets\]'"):
        texts(source(hub))


def test_rows_that_may_calibrate(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "data/train-0.parquet": parquet(*({"code": f"r{i}"} for i in range(3))),
        "data/train-1.parquet": parquet(*({"code": f"r{i}"} for i in range(3, 6))),
    }
    hub.add_repo(NAME, files, "dataset")
    assert texts(source(hub, rows="even")) == {"r0", "r2", "r4"}
    assert texts(source(hub, rows="odd")) == {"r1", "r3", "r5"}
    train, heldout = (texts(source(hub, split=split)) for split in ("train", "heldout"))
    assert not train & heldout and len(train | heldout) == 6
    monkeypatch.setattr(hub_sets, "ROWS_READ", 2)
    assert texts(source(hub)) == {"r0", "r1", "r3", "r4"}


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        (
            "py_alpaca",
            {"instruction": "Add.", "input": "1", "output": "1 + 1", "prompt": "..."},
            Document("0", "1 + 1", "Add.\n\n1", "python"),
        ),
        (
            "apps",
            {"question": "Solve.", "solutions": '["print(1)", "print(2)"]'},
            Document("0", "print(1)", "Solve.", "python"),
        ),
        ("apps", {"question": "Solve.", "solutions": ""}, None),
        ("apps", {"question": "Solve.", "solutions": "[]"}, None),
        ("github-python", {"content": "x = 1"}, Document("0", "x = 1", tag="python")),
        (
            "code-java",
            {"code": "int f() {}", "docstring": " Is f. "},
            Document("0", "int f() {}", "Is f.", "java"),
        ),
        ("code-cpp", {"solution": "int x;"}, Document("0", "int x;", tag="cpp")),
        ("c4", {"text": "Once."}, Document("0", "Once.")),
        ("c4", {"text": None}, None),
        (
            "math_qa",
            {"Problem": "1+1?", "options": "a ) 1 , b ) 2", "Rationale": "so b", "correct": "b"},
            Document("0", "so b", "1+1?\n\na ) 1 , b ) 2"),
        ),
        ("math_instruct", {"instruction": "1+1?", "output": "2"}, Document("0", "2", "1+1?")),
        ("math_orca", {"question": "1+1?", "answer": "2"}, Document("0", "2", "1+1?")),
        (
            "commonsenseqa",
            {"question": "Sky?", "choices": {"text": ["red", "blue"]}, "answerKey": "A"},
            Document("0", "A. red", "Sky?\nA. red\nB. blue"),
        ),
        (
            "openbookqa",
            {"question_stem": "Sky?", "choices": {"text": ["red", "blue"]}, "answerKey": "B"},
            Document("0", "B. blue", "Sky?\nA. red\nB. blue"),
        ),
        (
            "hellaswag",
            {"ctx": "He", "endings": ["runs.", "is."], "label": "0"},
            Document("0", "A. runs.", "He\nA. runs.\nB. is."),
        ),
        ("hellaswag", {"ctx": "He", "endings": ["runs."], "label": ""}, None),
        (
            "wmt14",
            {"translation": {"en": "Yes", "fr": "Oui"}},
            Document("0", "Yes", "Translate from French to English.\n\nOui"),
        ),
        ("opus_books", {"translation": {"en": "Yes", "fr": " "}}, None),
        (
            "song_translation",
            {"original_version": "Yes", "french_version": "Oui", "title": "t"},
            Document("0", "Yes", "Translate from French to English.\n\nOui"),
        ),
    ],
)
def test_fields_of_the_catalogs_sets(
    name: str, row: dict[str, Any], expected: Document | None
) -> None:
    found = list(row_documents(CATALOG.calibration_set(name), row, "0"))
    assert found == ([] if expected is None else [expected])


def test_a_field_that_is_not_there_is_named() -> None:
    with pytest.raises(CalibrationError, match="hub:s has no field 'code', only a, b; correct"):
        list(row_documents(entry(), {"a": 1, "b": 2}, "0"))
