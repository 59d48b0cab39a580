"""The tasks of the domains on tiny engines: the harness's own numbers, the right rows."""

from __future__ import annotations

import functools
import gzip
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lm_eval.tasks
import pytest
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager
from oracles.domain_rows import rows_of

from subllm.errors import (
    MissingExtraError,
    UnknownNameError,
)
from subllm.measuring.evaluation.domains import DOMAIN_TASKS
from subllm.measuring.evaluation.intervals import mean_interval
from subllm.measuring.evaluation.lm_eval.answers import AnswerCache
from subllm.measuring.evaluation.meteor import load_meteor

from .domain_runs import CONTEXT, PACKED, REFERENCE, run, write
from .test_lm_eval_model import harness_model, native_engine

CHOICE_TASKS = [name for name, task in DOMAIN_TASKS.items() if task.domain == "csr"]


@pytest.fixture
def engine() -> Iterator[Any]:
    made = native_engine(PACKED, CONTEXT)
    yield made
    made.close()


def directory(root: Path, task: str, count: int = 6) -> Path:
    entry = DOMAIN_TASKS[task]
    write(root / f"{entry.split}.jsonl", rows_of(task, count))
    if entry.shots:
        write(root / f"{entry.shots_split}.jsonl", rows_of(task, count + 20)[count:])
    return root


@functools.cache
def all_tasks() -> Any:
    """Those in the folders where ours are; looking through all takes ten seconds."""
    root = next(iter(lm_eval.tasks.__path__))
    folders = ("openbookqa", "winogrande", "super_glue", "arc", "hellaswag", "gsm8k")
    paths = [f"{root}/{folder}" for folder in folders]
    return TaskManager(include_path=paths, include_defaults=False)


def harness_numbers(task: str, root: Path) -> dict[str, float]:
    """What the harness's own task and its own model give on the files under `root`."""
    entry = DOMAIN_TASKS[task]
    files = {file.stem: str(file) for file in root.glob("*.jsonl")}
    changes = {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files, "cache_dir": str(root / "cache")},
        "training_split": None,
        "validation_split": entry.split,
        "test_split": None,
        "num_fewshot": entry.shots,
        "fewshot_config": {"sampler": "first_n"},
    }
    found = all_tasks().load({"group": "g", "task": [{"task": task, **changes}]})
    built = found["tasks"][task]
    model = harness_model(REFERENCE, CONTEXT)
    found = evaluate(lm=model, task_dict={"tasks": {task: built}}, bootstrap_iters=0)
    return found["results"][task]


@pytest.mark.parametrize("task", [*CHOICE_TASKS, "gsm8k"])
def test_a_task_is_the_harness_own(task: str, engine: Any, tmp_path: Path) -> None:
    found = run(engine, task, directory(tmp_path, task))
    theirs = harness_numbers(task, tmp_path)
    metric = DOMAIN_TASKS[task].metric
    assert found.figures["score"] == theirs[metric if "," in metric else f"{metric},none"]
    for name, value in found.figures["metrics"].items():
        assert value == theirs[name if "," in name else f"{name},none"]
    assert len(found.questions) == found.rows.total == 6
    assert found.effort.truncated == 0


def test_the_score_is_the_mean_of_what_single_questions_got(engine: Any, tmp_path: Path) -> None:
    found = run(engine, "arc_easy", write(tmp_path / "a.jsonl", rows_of("arc_easy", 20)))
    assert [one.row for one in found.questions] == list(range(20))
    assert {one.score for one in found.questions} == {0.0, 1.0}
    figures = found.figures
    assert figures["score"] == sum(one.score for one in found.questions) / 20
    assert 0 <= figures["low"] < figures["score"] < figures["high"] <= 1
    assert set(figures["metrics"]) == {"acc", "acc_norm"}


def test_worked_examples_are_the_first_of_the_training_split(engine: Any, tmp_path: Path) -> None:
    found = run(engine, "gsm8k", directory(tmp_path, "gsm8k"))
    assert len(found.rows.shots) == 8
    assert set(found.figures["metrics"]) == {
        "exact_match,strict-match",
        "exact_match,flexible-extract",
    }
    assert all(len(one.answers) == 1 for one in found.questions)
    rows = rows_of("gsm8k", 26)
    shown = "\n\n".join(f"Question: {r['question']}\nAnswer: {r['answer']}" for r in rows[6:14])
    first = f"{shown}\n\nQuestion: {rows[0]['question']}\nAnswer:"
    model = harness_model(REFERENCE, CONTEXT)
    until = ["Question:", "</s>", "<|im_end|>"]
    (answer,) = model.generate_until([_asked(first, until)])
    assert found.questions[0].answers == (answer,)


def _asked(prompt: str, until: list[str]) -> Any:
    from lm_eval.api.instance import Instance

    return Instance("generate_until", {}, (prompt, {"until": until, "do_sample": False}), 0)


@pytest.mark.parametrize("task", ["wmt14", "opus_books"])
def test_of_five_translations_the_best_counts(task: str, engine: Any, tmp_path: Path) -> None:
    """What is drawn is nonsense, so the score is counted by hand from the answers."""
    path = write(tmp_path / "t.jsonl", rows_of(task, 8))
    found = run(engine, task, path, seed=3)
    meteor = load_meteor()
    for one in found.questions:
        assert len(set(one.answers)) == 5
        assert not any("\n" in answer for answer in one.answers)
        reference = rows_of(task, 8)[one.row]["translation"]["en"]
        assert one.score == max(meteor.score(reference, answer) for answer in one.answers)
    assert [one.row for one in found.questions] == (
        [1, 3, 5, 7] if task == "opus_books" else list(range(8))
    )
    assert run(engine, task, path, seed=3).questions == found.questions
    assert run(engine, task, path, seed=4).questions != found.questions


def test_the_seed_chooses_which_questions_a_limit_leaves(engine: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", rows_of("boolq", 40))
    whole = {one.row: one for one in run(engine, "boolq", path).questions}
    first, again, other = (run(engine, "boolq", path, limit=5, seed=s) for s in (0, 0, 1))
    assert first.questions == again.questions
    rows = [one.row for one in first.questions]
    assert len(rows) == 5 and rows == sorted(rows) and rows != [one.row for one in other.questions]
    assert all(whole[one.row] == one for one in first.questions)
    assert first.rows.digest == other.rows.digest
    assert first.rows.total == 40


def test_data_has_one_digest_in_every_kind_of_file(engine: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", rows_of("boolq"))
    packed = tmp_path / "b.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(rows_of("boolq")).encode()))
    other = write(tmp_path / "c.jsonl", rows_of("boolq", 7))
    digests = [run(engine, "boolq", data).rows.digest for data in (path, packed, other)]
    assert digests[0] == digests[1] != digests[2]


def test_a_second_run_asks_the_cache(engine: Any, tmp_path: Path) -> None:
    data = directory(tmp_path, "gsm8k", 2)
    with AnswerCache(tmp_path / "answers.sqlite", "this very model") as cache:
        first = run(engine, "gsm8k", data, cache=cache)
        again = run(engine, "gsm8k", data, cache=cache)
    assert (first.effort.cached, again.effort.cached) == (0, 2)
    assert first.effort.generated > 0 == again.effort.generated
    assert first.questions == again.questions


def test_prompts_that_are_cut_are_counted(tmp_path: Path) -> None:
    engine = native_engine(PACKED, 64)
    rows = rows_of("boolq", 2)
    rows[1]["passage"] *= 4
    found = run(engine, "boolq", write(tmp_path / "a.jsonl", rows))
    assert found.effort.truncated == 2
    engine.close()


def test_unknown_tasks_are_named(engine: Any) -> None:
    with pytest.raises(UnknownNameError, match="did you mean hellaswag"):
        run(engine, "helaswag", None)


def test_without_the_harness(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'subllm\[eval\]'"):
        run(engine, "boolq", None)


def test_the_harness_is_not_heard(
    engine: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = logging.getLogger("lm_eval").level
    run(engine, "hellaswag", write(tmp_path / "h.jsonl", rows_of("hellaswag")))
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("lm_eval").level == before


def test_the_interval_of_a_mean() -> None:
    """For a share p of n, about 1.96 sqrt(p (1 - p) / n) on both sides."""
    low, high = mean_interval([1.0] * 60 + [0.0] * 140, seed=0)
    width = 1.96 * (0.3 * 0.7 / 200) ** 0.5
    assert low == pytest.approx(0.3 - width, abs=0.006)
    assert high == pytest.approx(0.3 + width, abs=0.006)
    assert mean_interval([0.5] * 9, seed=0) == (0.5, 0.5)
