"""Records files: written by runs that are killed, read by others."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from subllm.errors import LockedError, StoreError
from subllm.measuring.evaluation.record_file import RecordFile, read_records
from subllm.measuring.evaluation.records import (
    Canonical,
    DataFacts,
    ModelFacts,
    RunHeader,
    Sample,
    Sampling,
    Summary,
)
from subllm.models.store.manifest import sha256_of


def header(**changes: Any) -> RunHeader:
    values: dict[str, Any] = {
        "task": "humaneval",
        "language": "python",
        "model": ModelFacts(
            name="tiny:1m-python",
            digest=sha256_of(b"model"),
            language="python",
            base="tiny:1m",
            base_digest=sha256_of(b"base"),
            base_source="path:here",
            method="wanda",
            pattern="8:16",
            values="int8",
            head="int8",
            density=0.5,
        ),
        "data": DataFacts(source="a.jsonl", form="humaneval", digest=sha256_of(b"d"), rows=2),
        "prompt": "raw",
        "sampling": Sampling(temperature=0, top_p=1, max_tokens=8, seed=0),
        "harness": 1,
        "tools": {"toolchain": "python 3"},
        "created": "2026-01-01T00:00:00+00:00",
    }
    return RunHeader(**(values | changes))


def sample(key: str, index: int) -> Sample:
    return Sample(
        run=key,
        problem="HumanEval/0",
        index=index,
        raw="    return 'ä\u2028'\n# rest",
        kept=14,
        program="def f(): ...",
        ended="rule",
        tokens=9,
        seconds=0.5,
        status="passed",
        detail="",
        check_seconds=0.01,
    )


def test_round_trip(tmp_path: Path) -> None:
    with RecordFile(tmp_path, header()) as records:
        lines = [
            Canonical(problem="HumanEval/0", status="passed", detail="", seconds=0.1),
            sample(records.key, 0),
            Summary(run=records.key, figures={"pass": [{"k": 1, "value": 0.5}]}),
        ]
        for line in lines:
            records.append(line)
    assert records.path.name == f"humaneval-python-tiny-1m-python-{records.key}.jsonl"
    assert read_records(records.path) == (header(), lines)
    rows = [json.loads(line) for line in records.path.read_text().split("\n")[:-1]]
    assert [row["kind"] for row in rows] == ["run", "canonical", "sample", "summary"]
    assert rows[0]["model"]["digest"] == sha256_of(b"model")


def test_goes_on_after_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    with RecordFile(tmp_path, header()) as records:
        records.append(sample(records.key, 0))
        records.append(sample(records.key, 1))
    whole = records.path.read_bytes()
    records.path.write_bytes(whole[:-30])
    assert len(read_records(records.path)[1]) == 1
    with RecordFile(tmp_path, header(machine={"cpu": "other"}, created="later")) as again:
        assert again.path == records.path
        assert [line.index for line in again.of(Sample)] == [0]
        again.append(sample(again.key, 1))
    assert records.path.read_bytes() == whole


@pytest.mark.parametrize(
    "changes",
    [
        {"harness": 2},
        {"prompt": "chat"},
        {"tools": {"toolchain": "python 4"}},
        {"sampling": Sampling(temperature=0, top_p=1, max_tokens=8, seed=1)},
        {"data": DataFacts(source="a.jsonl", form="humaneval", digest=sha256_of(b"e"), rows=2)},
    ],
)
def test_another_measurement_is_another_file(tmp_path: Path, changes: dict[str, Any]) -> None:
    with RecordFile(tmp_path, header()) as one, RecordFile(tmp_path, header(**changes)) as other:
        assert one.path != other.path


def _hold(directory: Path, ready: Any, done: Any) -> None:
    with RecordFile(directory, header()):
        ready.set()
        done.wait(30)


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready, done))
    process.start()
    try:
        assert ready.wait(30)
        with pytest.raises(LockedError, match="another process writes"):
            RecordFile(tmp_path, header())
    finally:
        done.set()
        process.join(30)
    with RecordFile(tmp_path, header()) as records:
        assert records.lines == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace('"format":1', '"format":9'), "another format"),
        (lambda text: text.replace('"index":0', '"index":"x"'), ":2: no record"),
        (lambda text: "nothing\n" + text, ":1: no record"),
        (lambda text: "[]\n" + text, ":1: no record"),
        (lambda text: "", ":1: no record"),
    ],
)
def test_damaged_files(tmp_path: Path, damage: Any, message: str) -> None:
    with RecordFile(tmp_path, header()) as records:
        records.append(sample(records.key, 0))
    records.path.write_text(damage(records.path.read_text()))
    with pytest.raises(StoreError, match=message):
        read_records(records.path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        read_records(tmp_path / "no.jsonl")
