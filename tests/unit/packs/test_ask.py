"""Asking a tiny checkpoint from disk, one worker's share at a time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import ask
import pytest
import torch
from answers import Sampling, read_answers, rotation
from ask import Run, load_model, work
from generate import Finished
from oracles import tiny_models

from subllm.weights.open import open_weights

COUNTS = {"python": 2, "javascript": 1, "cpp": 1, "java": 1, "general": 2}
TEMPLATE = "{{ messages[0].content }}<|mark|>"


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """`work` takes one thread; other tests get back what they had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with a tied head, one without."""
    directory = tmp_path_factory.mktemp("checkpoint")
    tiny_models.oracle(request.param).save_pretrained(directory)
    bundle = json.loads(tiny_models.tokenizer().to_bundle())
    (directory / "tokenizer.json").write_text(bundle["tokenizer"])
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|end|>", "chat_template": TEMPLATE})
    )
    return directory


def run(checkpoint: Path, directory: Path) -> Run:
    directory.mkdir()
    return Run((checkpoint,), directory, COUNTS, 4, 2, 10.0, Sampling(max_new=6))


def test_the_model_is_the_checkpoint_in_bfloat16(checkpoint: Path) -> None:
    reader = open_weights(checkpoint)
    state = load_model(reader).state_dict()
    for name in reader.names():
        assert torch.equal(state[name], torch.from_numpy(reader.read(name)).bfloat16())


def test_workers_answer_all_tasks_once_and_go_on_after_a_stop(
    checkpoint: Path, tmp_path: Path
) -> None:
    asked = run(checkpoint, tmp_path / "answers")
    ids = [task.id for _, task in rotation(COUNTS, 0)]
    work(asked, 0)
    assert set(read_answers(asked.directory)) == set(ids[::2])
    work(asked, 1)
    made = read_answers(asked.directory)
    assert set(made) == set(ids)
    for answer in made.values():
        assert answer["tokens"] == 6 or answer["ended"]

    path = asked.directory / "worker-1.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + '\n{"id"')  # killed while it wrote the last
    work(asked, 1)
    assert set(read_answers(asked.directory)) == set(ids)
    assert len(path.read_text().splitlines()) == len(lines) + 1
    before = path.read_text()
    work(asked, 1)
    assert path.read_text() == before


def test_prompts_are_requests_in_the_chat_template_and_answers_their_texts(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Echo:
        """Ends every text at once, with the last tokens of its prompt before the mark."""

        def __init__(self, model: object, stops: frozenset[int], *_: object) -> None:
            assert tiny_models.END in stops

        def run(self, prompts: list[tuple[int, list[int]]]) -> Iterator[Finished]:
            for number, ids in prompts:
                assert ids[-1] == tiny_models.MARK
                yield Finished(number, ids[:-1], number % 2 == 0)

    monkeypatch.setattr(ask, "Generator", Echo)
    asked = dataclasses.replace(run(checkpoint, tmp_path / "answers"), workers=1)
    ask.work(asked, 0)
    made = read_answers(asked.directory)
    for number, task in rotation(COUNTS, 0):
        assert made[task.id]["text"] == task.request
        assert made[task.id]["ended"] == (number % 2 == 0)
        assert made[task.id]["tokens"] == len(task.request.encode())


def test_it_stops_when_the_minutes_are_over(checkpoint: Path, tmp_path: Path) -> None:
    asked = dataclasses.replace(run(checkpoint, tmp_path / "answers"), minutes=0.0)
    ask.work(asked, 0)
    assert len(read_answers(asked.directory)) == 1
