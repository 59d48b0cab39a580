"""Records of domain tasks: they stand alone, and nothing is asked twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from oracles.domain_rows import rows_of
from oracles.packed_models import NAME, packed_oracle, store_model

from subllm.engine.computing import Computing
from subllm.errors import UnknownNameError
from subllm.measuring.evaluation.bench import Bench
from subllm.measuring.evaluation.engines import Engines
from subllm.measuring.evaluation.measures.table import load_measures
from subllm.measuring.evaluation.meteor import NOTE, load_meteor
from subllm.measuring.evaluation.options import TaskOptions
from subllm.measuring.evaluation.record_file import read_records
from subllm.measuring.evaluation.records import Question, Result, Summary
from subllm.models.catalog.prompt import PromptSpec
from subllm.models.store.store import Store
from subllm.progress import NullProgress

from .domain_runs import run as run_alone

CONTEXT = 400


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    packed, _ = packed_oracle("llama", "int8", "8:16")
    made = store_model(tmp_path_factory.mktemp("store"), packed)
    prompt = PromptSpec(context_length=CONTEXT)  # translations may have 256 tokens
    with made.writing():
        manifest = made.model(NAME).model_copy(update={"prompt": prompt})
        made.set_ref(NAME, made.put_manifest(manifest))
    return made


def write(path: Path, task: str, count: int) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(task, count)))
    return path


class Stop(Exception):
    pass


class StopsAfter(NullProgress):
    """As if Ctrl-C were pressed when so many answers are there."""

    def __init__(self, answers: int) -> None:
        self.left = answers

    def advance(self, key: str, amount: float = 1) -> None:
        self.left -= 1
        if self.left < 0:
            raise Stop


class NoEngines(Engines):
    """Of a run that has all its answers."""

    def __call__(self, *_: Any) -> Any:
        raise AssertionError("no engine is needed")


def run(
    store: Store,
    root: Path,
    task: str,
    data: Path,
    *,
    engines: type[Engines] = Engines,
    kv_type: Any = "bfloat16",
    progress: Any = None,
    **options: Any,
) -> Result:
    opened = engines(store, Computing(backend="native", kv_type=kv_type))
    with Bench(store, opened, root / "out", progress or NullProgress()) as bench:
        how = TaskOptions(own={task: data}, **{"together": 8, **options})
        (measure,) = load_measures(task, how, bench, [])
        return measure.run(bench, NAME)


@pytest.mark.parametrize("task", ["boolq", "wmt14"])
def test_records_hold_what_was_measured(task: str, store: Store, tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", task, 6)
    result = run(store, tmp_path, task, data, seed=5)
    with Bench(store, Engines(store), tmp_path, NullProgress()) as bench:
        direct = run_alone(bench.engines(NAME, 8, CONTEXT), task, data, seed=5)
    figures = result.figures
    assert figures.items() >= direct.figures.items()
    assert figures["questions"] == 6
    metric = "acc" if task == "boolq" else load_meteor().label
    (score,) = result.scores
    assert (score.name, score.value) == (figures["metric"], figures["score"])
    assert score.name == metric
    header, lines = read_records(result.path)
    questions = [line for line in lines if isinstance(line, Question)]
    assert [(q.row, q.score, q.answers) for q in questions] == [
        (one.row, one.score, one.answers) for one in direct.questions
    ]
    assert isinstance(lines[-1], Summary) and lines[-1].figures == figures
    assert (header.task, header.language, header.data.digest) == (
        task,
        "csr" if task == "boolq" else "translation",
        direct.rows.digest,
    )
    assert header.model.digest == store.resolve(NAME)
    assert header.tools["backend"] == "native"
    assert header.tools["harness"].startswith("lm_eval ")
    assert header.tools["metric"] == metric
    if task == "wmt14":
        assert header.sampling is not None
        assert (header.sampling.seed, header.sampling.temperature) == (5, 0.7)
        assert figures["notes"] == ([] if load_meteor().label == "METEOR" else [NOTE])
        assert all(len(q.answers) == 5 for q in questions)


def test_a_complete_run_is_only_counted(store: Store, tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", "arc_easy", 5)
    first = run(store, tmp_path, "arc_easy", data)
    size = first.path.stat().st_size
    again = run(store, tmp_path, "arc_easy", data, engines=NoEngines)
    assert (first.new, again.new) == (5, 0)
    assert again.figures == first.figures
    assert again.path.stat().st_size == size


def test_a_larger_limit_asks_only_what_is_new(store: Store, tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", "arc_easy", 12)
    small = run(store, tmp_path, "arc_easy", data, limit=4)
    large = run(store, tmp_path, "arc_easy", data, limit=9)
    assert (small.new, large.new) == (4, 5)
    assert large.path == small.path
    assert (small.figures["questions"], large.figures["questions"]) == (4, 9)
    whole = run(store, tmp_path / "other", "arc_easy", data, limit=9)
    for name in ("score", "low", "high", "metrics"):
        assert whole.figures[name] == large.figures[name]
    counted = run(store, tmp_path, "arc_easy", data, limit=4, engines=NoEngines)
    assert counted.figures["score"] == small.figures["score"]
    assert len([q for q in read_records(large.path)[1] if isinstance(q, Question)]) == 9


def test_a_run_that_was_stopped_goes_on(store: Store, tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", "wmt14", 4)
    with pytest.raises(Stop):
        run(store, tmp_path, "wmt14", data, progress=StopsAfter(12), together=2)
    rest = run(store, tmp_path, "wmt14", data)
    whole = run(store, tmp_path / "other", "wmt14", data)
    assert rest.figures["score"] == whole.figures["score"]
    assert 0 < rest.figures["generated_tokens"] < whole.figures["generated_tokens"] / 2


def test_other_tools_are_another_measurement(store: Store, tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", "boolq", 2)
    one = run(store, tmp_path, "boolq", data, kv_type="bfloat16")
    other = run(store, tmp_path, "boolq", data, kv_type="int8")
    assert one.path != other.path
    assert other.figures["scored_tokens"] == one.figures["scored_tokens"] > 0


def test_prompts_that_lost_their_beginning_stay_counted(store: Store, tmp_path: Path) -> None:
    rows = rows_of("boolq", 2)
    rows[1]["passage"] *= 20  # a token is a byte
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first = run(store, tmp_path, "boolq", data)
    assert first.figures["truncated"] == 2
    assert "2 prompts lost their beginning" in first.figures["notes"][0]
    assert run(store, tmp_path, "boolq", data, engines=NoEngines).figures == first.figures


def test_names_are_checked_first(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean gsm8k"):
        run(store, tmp_path, "gsm8", tmp_path)
