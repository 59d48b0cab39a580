from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.engines.worker import Worker, WorkerError

from .samples import RIGHT, served


@pytest.fixture
def worker(tmp_path: Path):
    one = served(tmp_path / "log")
    running = Worker("tiny", one.sizes(1, 600, 1), one.environment)
    yield running
    running.close()


def ask(name: str, **changes: object) -> dict[str, object]:
    return {"id": name, "prompt": [1, 2], "max_tokens": 100, "head": "def f():\n", **changes}


def test_a_completion_ends_where_its_rule_says_though_a_step_gave_more(worker: Worker) -> None:
    (answer,) = worker.parts("complete", asks=[ask("a")])
    body = RIGHT[: RIGHT.index("print")]
    assert answer["raw"][: answer["kept"]] == body
    assert answer["ended"] == "rule"
    assert len(answer["ids"]) == len(body) + 1  # the first letter outside decides
    assert answer["decoded"] == len(answer["ids"]) - 2  # the first step came with the prompt
    assert answer["steps"] == -(-answer["decoded"] // 2)
    assert answer["decode_seconds"] > 0


def test_without_a_head_a_completion_goes_on_to_the_model_s_end(worker: Worker) -> None:
    (answer,) = worker.parts("complete", asks=[ask("a", head=None)])
    assert (answer["raw"], answer["ended"]) == (RIGHT, "stop")


def test_a_worker_goes_on_after_an_error(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="ValueError: no room"):
        list(worker.parts("complete", asks=[ask("a", max_tokens=2000)]))
    assert len(list(worker.parts("complete", asks=[ask("b"), ask("c")], together=2))) == 2
    with pytest.raises(WorkerError, match="KeyError: 'decode'"):
        worker.measure("decode")


def test_the_last_words_of_a_worker_are_its_error(tmp_path: Path) -> None:
    one = served(tmp_path / "log")
    with pytest.raises(WorkerError, match="No such file"):
        Worker("broken", [one.command[0], str(tmp_path / "no.py")], {})
