"""One task of a domain, measured on an engine by the harness. Imports the harness."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lm_eval.evaluator import evaluate

from subllm.engine.request import Engine
from subllm.measuring.evaluation.domains import DomainTask
from subllm.measuring.evaluation.lm_eval.answers import AnswerCache, Effort
from subllm.measuring.evaluation.lm_eval.configs import build
from subllm.measuring.evaluation.lm_eval.model import EngineLM
from subllm.measuring.evaluation.lm_eval.rows import TaskRows
from subllm.measuring.evaluation.meteor import Meteor
from subllm.measuring.evaluation.records import Question
from subllm.models.text.tokenizer import Tokenizer
from subllm.progress import Progress

_LOGGERS = ("lm_eval", "datasets")


@dataclass(frozen=True)
class Asking:
    """seed      decides what is sampled
    together  answers that are generated at once
    cache     of answers given before; must be of this very model and backend
    """

    seed: int
    together: int
    cache: AnswerCache | None = None
    progress: Progress | None = None


def run_task(
    engine: Engine,
    tokenizer: Tokenizer,
    task: DomainTask,
    rows: TaskRows,
    meteor: Meteor | None,
    asking: Asking,
    run: str,
) -> tuple[list[Question], Effort]:
    """The chosen ones of `rows`, asked in their order on an engine that is otherwise idle.

    meteor  scores translations
    run     of the records, in which each question is a line

    Raises BenchmarkError for rows that the task cannot read, EngineError, StoreError for a
    cache that cannot be used.
    """
    model = EngineLM(
        engine,
        tokenizer,
        seed=asking.seed,
        together=asking.together,
        cache=asking.cache,
        progress=asking.progress,
        title=task.name,
    )
    with _quiet():
        built = build(task, list(rows.chosen.values()), rows.shots, meteor)
        built.build_all_requests = _unseen(built.build_all_requests)
        found = evaluate(lm=model, task_dict={"tasks": {task.name: built}}, bootstrap_iters=0)
    return _questions(task, rows, found["samples"][task.name], run), model.effort


def _questions(
    task: DomainTask, rows: TaskRows, samples: list[dict[str, Any]], run: str
) -> list[Question]:
    """The harness's samples as ours. It numbers the rows that it was given, and has a sample
    for each way of reading the answers ("filter")."""
    metrics: dict[int, dict[str, float]] = {}
    answers: dict[int, tuple[str, ...]] = {}
    for sample in samples:
        number = sample["doc_id"]
        reading = "" if sample["filter"] == "none" else f",{sample['filter']}"
        counted = {f"{name}{reading}": float(sample[name]) for name in sample["metrics"]}
        metrics.setdefault(number, {}).update(counted)
        generated = (text for texts in sample["resps"] for text in texts)
        answers[number] = tuple(text for text in generated if isinstance(text, str))
    return [
        Question(
            run=run,
            row=place,
            score=metrics[number][task.metric],
            metrics=metrics[number],
            answers=answers[number],
        )
        for number, place in enumerate(rows.chosen)
    ]


def _unseen(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call` without the progress bar that it draws."""

    def silent(*args: Any, **options: Any) -> Any:
        with contextlib.redirect_stderr(io.StringIO()):
            return call(*args, **options)

    return silent


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the harness's log lines and bars away: what matters of them is in the result."""
    import datasets

    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    bars = datasets.are_progress_bars_disabled()
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
