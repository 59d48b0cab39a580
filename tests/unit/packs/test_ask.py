"""Asking a tiny model of a store."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import ask
import pytest
from answers import Sampling, read_answers, rotation

from subllm.models.store.store import Store
from unit.cli import tiny_store

COUNTS = {"python": 2, "javascript": 1, "cpp": 1, "java": 1, "general": 2}
TASKS = {task.id: task for _, task in rotation(COUNTS, 0)}
DENSE = f"{tiny_store.BASE}-dense"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    directory = tmp_path_factory.mktemp("ask")
    return tiny_store.build(
        directory / "home", tiny_store.write_checkpoint(directory / "checkpoint")
    )


def run(directory: Path) -> ask.Run:
    return ask.Run(directory, COUNTS, 3, 10.0, Sampling(max_new=6))


def test_all_tasks_are_answered_once_and_a_stopped_run_goes_on(
    store: Store, tmp_path: Path
) -> None:
    asked = run(tmp_path)
    ask.generate(asked, store, DENSE)
    made = read_answers(tmp_path)
    assert set(made) == set(TASKS)
    values = store.model(DENSE).values
    assert {a["by"] for a in made.values()} == {f"subllm engine, {values} weights, {values} head"}
    assert all(a["tokens"] == 6 and not a["ended"] and len(a["text"]) == 6 for a in made.values())
    path = tmp_path / ask.ANSWERS_FILE
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-2]) + '\n{"id"')  # killed while it wrote
    ask.generate(asked, store, DENSE)
    assert read_answers(tmp_path) == made  # each task's draws are its own
    before = path.read_text()
    ask.generate(asked, store, DENSE)
    assert path.read_text() == before


def test_greedy_answers_follow_the_request_in_the_chat_template(
    store: Store, tmp_path: Path
) -> None:
    asked = dataclasses.replace(run(tmp_path), sampling=Sampling(temperature=0.0, max_new=8))
    ask.generate(asked, store, DENSE)
    for task in TASKS.values():
        ids = [
            tiny_store.token("<|im_start|>"),
            *f"user\n{task.request}".encode(),
            tiny_store.token("<|im_end|>"),
            *b"\n",
            tiny_store.token("<|im_start|>"),
            *b"assistant\n",
        ]
        expected = tiny_store.greedy(store, ids, 8)
        assert read_answers(tmp_path)[task.id]["text"] == expected


def test_it_stops_when_the_minutes_are_over(store: Store, tmp_path: Path) -> None:
    ask.generate(dataclasses.replace(run(tmp_path), minutes=0.0), store, DENSE)
    assert len(read_answers(tmp_path)) == 1
