"""Where rows of the domains' tasks come from: the hub, files, and what is refused of them."""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from fakes.hub import FakeHub
from huggingface_hub import constants
from oracles.domain_rows import rows_of

from subllm.errors import BenchmarkError, OfflineError, TableError
from subllm.making.calibration.hub_sets import HubSource
from subllm.measuring.evaluation.domains import DOMAIN_TASKS
from subllm.models.acquire import datasets as acquire_datasets
from subllm.models.acquire.hub_client import HubClient
from subllm.models.acquire.splits import CONVERTED
from subllm.models.catalog.loader import load_catalog
from subllm.progress import NullProgress

from .domain_runs import CONTEXT, PACKED, run, write
from .test_lm_eval_model import native_engine


@pytest.fixture
def engine() -> Iterator[Any]:
    made = native_engine(PACKED, CONTEXT)
    yield made
    made.close()


class FromHub:
    """A hub on this machine with the sets of the tasks."""

    def __init__(self, hub: FakeHub) -> None:
        self.hub = hub

    def add(self, task: str, name: str, count: int = 3, branch: str | None = None) -> None:
        entry = DOMAIN_TASKS[task]
        buffer = io.BytesIO()
        table = pyarrow.Table.from_pylist(rows_of(task, count))
        pyarrow.parquet.write_table(table, buffer)
        branch = branch or entry.revision
        repo = self.hub.repos.get(("dataset", entry.repo))
        if repo is None:
            repo = self.hub.add_repo(entry.repo, {"README.md": b"no rows"}, "dataset")
        there = repo.commits.get(repo.branches.get(branch, ""), {})
        repo.push({**there, name: buffer.getvalue()}, branch)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FromHub]:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with FakeHub() as fake:
        client = functools.partial(HubClient, endpoint=fake.url)
        monkeypatch.setattr(acquire_datasets, "HubClient", client)
        yield FromHub(fake)


def test_rows_come_from_the_hub_once(hub: FromHub, engine: Any) -> None:
    hub.add("arc_easy", "ARC-Easy/test-00000-of-00001.parquet")
    hub.add("arc_easy", "ARC-Easy/train-00000-of-00001.parquet", 9)
    found = run(engine, "arc_easy", None)
    assert found.rows.source == "hub:allenai/ai2_arc/ARC-Easy/test@main"
    assert found.rows.total == 3
    count = len(hub.hub.requests)
    assert run(engine, "arc_easy", None, offline=True).rows.digest == found.rows.digest
    assert len(hub.hub.requests) == count
    with pytest.raises(OfflineError, match="openai/gsm8k is not in the Hugging Face cache"):
        run(engine, "gsm8k", None, offline=True)


@pytest.mark.parametrize("task", DOMAIN_TASKS)
def test_rows_in_the_places_where_sets_have_them(task: str, hub: FromHub, engine: Any) -> None:
    """In a folder of their configuration, or where the hub keeps what it has converted."""
    entry = DOMAIN_TASKS[task]
    name = f"{entry.split}-00000-of-00001.parquet"
    folder = "data" if entry.config == "default" else entry.config
    hub.add(task, f"{folder}/{name}", 4)
    if entry.shots:
        hub.add(task, f"{folder}/{entry.shots_split}-00000-of-00001.parquet", 8)
    assert run(engine, task, None).rows.total == 4


def test_rows_that_the_hub_has_converted(hub: FromHub, engine: Any) -> None:
    hub.hub.add_repo("Rowan/hellaswag", {"hellaswag.py": b"raise"}, "dataset")
    for _ in range(2):
        with pytest.raises(BenchmarkError, match="hellaswag has no files of default/validation"):
            run(engine, "hellaswag", None)
        hub.add("hellaswag", "default/train/0000.parquet", branch=CONVERTED)
    hub.add("hellaswag", "default/validation/0000.parquet", branch=CONVERTED)
    assert run(engine, "hellaswag", None).rows.total == 3


def test_no_row_both_calibrates_and_is_asked(hub: FromHub, engine: Any) -> None:
    """By split where a set has several, by row in the one that has one."""
    shared = 0
    for entry in load_catalog().calibration_sets.values():
        for task in DOMAIN_TASKS.values():
            if task.repo == entry.repo and task.config == entry.config:
                shared += 1
                assert task.split != entry.split or (entry.rows, task.rows) == ("even", "odd")
    assert shared == 4  # openbookqa, hellaswag, wmt14, opus_books

    hub.add("opus_books", "en-fr/train-00000-of-00001.parquet", 21)
    asked = {one.row for one in run(engine, "opus_books", None).questions}
    opened = functools.partial(
        acquire_datasets.open_dataset, progress=NullProgress(), client=HubClient(hub.hub.url)
    )
    entry = load_catalog().calibration_set("opus_books")
    calibrating = {int(d.id) for d in HubSource(entry, opened, "all").documents(0)}
    assert asked | calibrating == set(range(21))
    assert not asked & calibrating


def test_of_a_large_set_the_same_rows_are_asked(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = dataclasses.replace(DOMAIN_TASKS["opus_books"], most=4, samples=2)
    monkeypatch.setitem(DOMAIN_TASKS, "opus_books", small)  # type: ignore[arg-type]
    path = write(tmp_path / "t.jsonl", rows_of("opus_books", 40))
    first, other = (run(engine, "opus_books", path, seed=seed) for seed in (0, 1))
    rows = [one.row for one in first.questions]
    assert rows == [one.row for one in other.questions]
    assert len(rows) == 4 and all(row % 2 for row in rows) and rows != [1, 3, 5, 7]
    part = run(engine, "opus_books", path, limit=2)
    assert {one.row for one in part.questions} < set(rows)


@pytest.mark.parametrize(
    ("task", "rows", "message"),
    [
        ("boolq", [], "has no rows for boolq; add some"),
        ("boolq", [{"passage": "p"}], r"row 1: no field 'question', only passage; boolq needs"),
        ("opus_books", rows_of("opus_books", 1), "has no rows for opus_books"),
        (
            "arc_easy",
            [{**rows_of("arc_easy", 1)[0], "answerKey": "Z"}],
            "cannot read question 1 of arc",
        ),
        (
            "hellaswag",
            [{**rows_of("hellaswag", 1)[0], "label": ""}],
            "cannot read question 1 of hella",
        ),
        (
            "openbookqa",
            [*rows_of("openbookqa", 2), {**rows_of("openbookqa", 1)[0], "answerKey": "E"}],
            r"cannot read question 3 of openbookqa \(.*'E' is not in list\); it needs rows as in",
        ),
        (
            "winogrande",
            [*rows_of("winogrande", 1), {**rows_of("winogrande", 1)[0], "answer": "3"}],
            r"cannot read question 2 of winogrande \('3'\)",
        ),
        (
            "boolq",
            [*rows_of("boolq", 1), {**rows_of("boolq", 1)[0], "label": 2}],
            r"cannot read question 2 of boolq \(answer 2 of 2 choices\)",
        ),
        (
            "hellaswag",
            [*rows_of("hellaswag", 1), {**rows_of("hellaswag", 1)[0], "label": "4"}],
            r"question 2 of hellaswag \(answer 4 of 4 choices\)",
        ),
        (
            "wmt14",
            [*rows_of("wmt14", 1), {"translation": {"en": "Yes", "fr": None}}],
            r"row 2: no field 'translation\.fr', only translation; wmt14 needs",
        ),
        (
            "boolq",
            [*rows_of("boolq", 1), {**rows_of("boolq", 1)[0], "label": "yes"}],
            "the rows are not all of one form",
        ),
        ("gsm8k", rows_of("gsm8k"), r"give --data a directory with train\.jsonl and test\.jsonl"),
    ],
)
def test_rows_that_do_not_fit(
    task: str, rows: list[Any], message: str, engine: Any, tmp_path: Path
) -> None:
    with pytest.raises(BenchmarkError, match=message):
        run(engine, task, write(tmp_path / "rows.jsonl", rows))


def test_files_that_do_not_fit(engine: Any, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"there is no .*absent; correct --data"):
        run(engine, "boolq", tmp_path / "absent")
    with pytest.raises(BenchmarkError, match="has no file of the validation split"):
        run(engine, "boolq", tmp_path)
    (tmp_path / "rows.csv").write_text("a,b")
    with pytest.raises(TableError, match=r"rows\.csv is none of \.parquet"):
        run(engine, "boolq", tmp_path / "rows.csv")
    write(tmp_path / "train.jsonl", rows_of("gsm8k", 7))
    with pytest.raises(BenchmarkError, match="7 rows to show as worked examples, gsm8k needs 8"):
        run(engine, "gsm8k", tmp_path)
