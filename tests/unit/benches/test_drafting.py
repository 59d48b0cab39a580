from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.drafting.measure import Compared, compare, table
from benchmarks.drafting.workloads import FILE, OLD, Workload
from benchmarks.engines.worker import Worker

from .samples import served


@pytest.fixture
def worker(tmp_path: Path):
    one = served(tmp_path / "log")
    running = Worker("tiny", one.sizes(1, 600, 8), one.environment)
    yield running
    running.close()


def workload(whole: bool = False, rounds: int = 3) -> Workload:
    asks = [
        [{"id": f"{number}", "prompt": [1], "max_tokens": 100, "head": "def f():\n"}]
        for number in range(rounds)
    ]
    return Workload("tiny", 1, whole, asks)


def test_every_round_is_run_without_and_with_drafts(worker: Worker, tmp_path: Path) -> None:
    said: list[str] = []
    found = compare(worker, workload(), "tiny:1m-dense", "auto", said.append)
    asked = (tmp_path / "log").read_text().split("\n")[:-1]
    assert asked == ["0 ", "0 auto", "1 auto", "1 ", "2 ", "2 auto"]
    assert len(found.plain) == len(found.drafted) == len(said) == 3
    assert found.different == 0 and not found.failed
    assert found.counts == {"draft drafted": 21, "draft accepted": 18}
    assert found.tokens / found.steps > 3
    assert compare(worker, workload(whole=True), "tiny:1m-dense", "auto", said.append).times


def test_texts_that_drafts_change_are_counted(worker: Worker) -> None:
    found = compare(worker, workload(), "tiny:1m-dense", "bad", lambda text: None)
    assert found.different == 3
    assert "3 texts differ from plain decoding's" in table([found])


def test_a_workload_that_fails_says_why(worker: Worker) -> None:
    rounds = [[{**ask, "max_tokens": 2000} for ask in asks] for asks in workload().rounds]
    found = compare(worker, replace(workload(), rounds=rounds), "m", "auto", lambda text: None)
    assert found.failed == "ValueError: no room" and found.times is None
    assert "not measured, ValueError: no room" in table([found])


def test_what_is_slower_than_it_may_be_is_marked() -> None:
    slow = Compared("slow", "m", "auto", [10.0, 10.0, 10.0], [9.0, 9.6, 9.9])
    fast = Compared("fast", "m", "auto", [10.0, 20.0], [30.0, 40.0])
    assert (slow.times, fast.times) == (0.96, 2.5)
    lines = table([slow, fast]).splitlines()
    assert "0.96*" in lines[1] and "*" not in lines[2]
    assert lines[3] == "* slower than 0.97 times plain decoding"
    assert "*" not in table([fast])


def test_the_file_to_rewrite_has_60_lines_and_the_name() -> None:
    source = FILE.read_text()
    assert len(source.splitlines()) == 60
    assert source.count(OLD) > 8
    compile(source, "inventory.py", "exec")
