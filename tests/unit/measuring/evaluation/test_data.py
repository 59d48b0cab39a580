"""Benchmark files: every form, every container, and every way to get one wrong."""

from __future__ import annotations

import functools
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from fakes.hub import FakeHub
from huggingface_hub import constants

from subllm.errors import BenchmarkError, OfflineError, TableError
from subllm.measuring.evaluation.data import NAMED, load_benchmark, load_file, load_named
from subllm.models.acquire import datasets
from subllm.models.acquire.hub_client import HubClient

from . import benchmarks
from .benchmarks import HUMANEVAL, HUMANEVAL_X, INFILLING, MBPP, MULTIPL_E


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def only(path: Path, language: str) -> Any:
    (problem,) = load_file(path, language).problems
    return problem


def test_humaneval(tmp_path: Path) -> None:
    problem = only(write(tmp_path / "a.jsonl", HUMANEVAL), "python")
    assert (problem.id, problem.kind, problem.entry) == ("HumanEval/0", "function", "add")
    program = problem.program(problem.canonical)
    assert program.startswith(HUMANEVAL["prompt"] + "    return a + b\n")
    assert program.rstrip().endswith("check(add)")
    exec(program, {})
    with pytest.raises(AssertionError):
        exec(problem.program("    return a - b\n"), {})


def test_humaneval_x_gets_the_headers_that_its_prompt_lacks(tmp_path: Path) -> None:
    problem = only(write(tmp_path / "a.jsonl", HUMANEVAL_X), "cpp")
    assert problem.prompt == HUMANEVAL_X["prompt"]  # what the model sees stays as it is
    assert problem.head.endswith(problem.prompt)
    added = problem.head.removesuffix(problem.prompt).splitlines()
    assert "#include<algorithm>" in added
    assert "#include<vector>" not in added
    assert problem.program("X\n").endswith("X\n\n" + HUMANEVAL_X["test"])


def test_infilling(tmp_path: Path) -> None:
    problem = only(write(tmp_path / "a.jsonl", INFILLING), "python")
    assert problem.kind == "infill"
    exec(problem.program(problem.canonical), {})
    with pytest.raises(AssertionError):
        exec(problem.program("    total = a - b\n"), {})


def test_mbpp_uses_its_test_split(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {**MBPP, "task_id": 10}, MBPP, {**MBPP, "task_id": 511})
    benchmark = load_file(path, "python")
    (problem,) = benchmark.problems
    assert (problem.id, problem.kind, benchmark.rows) == ("MBPP/11", "program", 3)
    assert problem.prompt == (
        '"""\nWrite a function to add.\nassert add(1, 2) == 3\nassert add(0, 0) == ZERO\n"""\n'
    )
    assert "\r" not in problem.canonical
    exec(problem.program(problem.canonical), {})  # the docstring is no part of the program


def test_multipl_e(tmp_path: Path) -> None:
    problem = only(write(tmp_path / "a.jsonl", MULTIPL_E), "javascript")
    assert problem.stops == ("\nfunction ", "\n/*")
    assert problem.canonical is None


def test_digest_is_that_of_the_rows(tmp_path: Path) -> None:
    rows = [HUMANEVAL, {**HUMANEVAL, "task_id": "HumanEval/1"}]
    plain = write(tmp_path / "a.jsonl", *rows)
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    listed = tmp_path / "c.json"
    listed.write_text(json.dumps(rows, indent=1))
    import pyarrow
    import pyarrow.parquet

    table = tmp_path / "d.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    loaded = [load_file(path, "python") for path in (plain, packed, listed, table)]
    assert len({benchmark.digest for benchmark in loaded}) == 1
    assert len({benchmark.problems for benchmark in loaded}) == 1
    other = write(tmp_path / "e.jsonl", rows[0])
    assert load_file(other, "python").digest != loaded[0].digest


def test_limit_keeps_the_digest_of_all(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", HUMANEVAL, {**HUMANEVAL, "task_id": "HumanEval/1"})
    benchmark = load_file(path, "python")
    assert benchmark.first(1).problems == benchmark.problems[:1]
    assert benchmark.first(1).digest == benchmark.digest
    assert benchmark.first(None) == benchmark


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"a": 1}], "row 1: a row with the fields a is of no known form"),
        ([HUMANEVAL, {**HUMANEVAL, "test": None}], "row 2: its 'test' is missing"),
        ([{**MBPP, "test_list": "assert"}], "row 1: its 'test_list' is no list of texts"),
        ([HUMANEVAL, HUMANEVAL], "has HumanEval/0 twice"),
        ([HUMANEVAL_X], "has no python problems, only cpp"),
        ([{**MBPP, "task_id": 3}], "has no python problems, none of the test split"),
    ],
)
def test_malformed_rows(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        load_file(write(tmp_path / "a.jsonl", *rows), "python")


def test_malformed_files(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="there is no file"):
        load_file(tmp_path / "no.jsonl", "python")
    path = tmp_path / "a.txt"
    path.write_text("x")
    with pytest.raises(TableError, match="convert it to JSON lines"):
        load_file(path, "python")
    path = tmp_path / "a.jsonl"
    path.write_text("")
    with pytest.raises(BenchmarkError, match="has no rows"):
        load_file(path, "python")
    path.write_text("{broken\n")
    with pytest.raises(TableError, match="cannot be read"):
        load_file(path, "python")


def test_task_by_name_with_files(tmp_path: Path) -> None:
    js = {**HUMANEVAL_X, "task_id": "JavaScript/0"}
    files = [write(tmp_path / "c.jsonl", HUMANEVAL_X), write(tmp_path / "j.jsonl", js)]
    assert load_benchmark("humaneval-x", "javascript", files)[1].source == "j.jsonl"
    assert load_benchmark("humaneval-x", "cpp", files)[1].source == "c.jsonl"
    with pytest.raises(BenchmarkError, match="no java problems"):
        load_benchmark("humaneval-x", "java", files)
    with pytest.raises(BenchmarkError, match="both have cpp problems"):
        load_benchmark("humaneval-x", "cpp", [files[0], files[0]])
    with pytest.raises(BenchmarkError, match="use --task humaneval-x"):
        load_benchmark("humaneval", "cpp", files)


def test_task_that_is_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", MBPP)
    label, benchmark = load_benchmark(str(path), "python")
    assert (label, len(benchmark.problems)) == ("mbpp", 1)


def test_tasks_without_a_source() -> None:
    with pytest.raises(BenchmarkError, match=r"multipl-e cannot be fetched.*--data"):
        load_benchmark("multipl-e", "python")
    with pytest.raises(BenchmarkError, match="humaneval has no java problems"):
        load_named("humaneval", "java")
    with pytest.raises(OfflineError, match="openai_humaneval"):
        load_named("humaneval", "python", offline=True)


def test_fetched_from_the_hub_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    js = {**HUMANEVAL_X, "task_id": "JavaScript/0"}
    local = write(tmp_path / "js.jsonl", js)
    with FakeHub() as hub:
        client = functools.partial(HubClient, endpoint=hub.url)
        monkeypatch.setattr(datasets, "HubClient", client)
        file = NAMED["humaneval-x"].files["javascript"]
        hub.add_repo("THUDM/humaneval-x", {file: local.read_bytes()}, "dataset")
        label, benchmark = load_benchmark("humaneval-x", "javascript")
        assert label == "humaneval-x"
        assert benchmark.source == f"hub:THUDM/humaneval-x/{file}@main"
        assert benchmark.digest == load_file(local, "javascript").digest
        load_benchmark("humaneval-x", "javascript")
        assert hub.sent(file) == local.stat().st_size
        with pytest.raises(BenchmarkError, match="has no file data/java"):
            load_benchmark("humaneval-x", "java")
    again = load_benchmark("humaneval-x", "javascript", offline=True)[1]
    assert again == benchmark


@pytest.mark.shared
@pytest.mark.parametrize("language", ["python", "java", "cpp", "javascript"])
def test_real_humaneval_x(language: str) -> None:
    benchmark = benchmarks.humaneval_x(language)
    assert (benchmark.form, benchmark.rows, len(benchmark.problems)) == ("humaneval-x", 164, 164)
    assert all(problem.canonical for problem in benchmark.problems)


@pytest.mark.shared
def test_real_humaneval() -> None:
    benchmark = load_file(benchmarks.shared("HumanEval.jsonl.gz"), "python")
    assert (benchmark.form, len(benchmark.problems)) == ("humaneval", 164)
