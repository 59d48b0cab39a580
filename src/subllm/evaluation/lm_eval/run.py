"""One task of a domain, measured on an engine by the harness. Imports the harness."""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from lm_eval.evaluator import evaluate

from subllm.evaluation.domain_scores import interval, means, notes_of
from subllm.evaluation.domains import DomainResult, DomainTask, Scored
from subllm.evaluation.lm_eval import harness_version
from subllm.evaluation.lm_eval.answers import AnswerCache
from subllm.evaluation.lm_eval.configs import build
from subllm.evaluation.lm_eval.model import EngineLM
from subllm.evaluation.lm_eval.rows import TaskRows
from subllm.evaluation.meteor import load_meteor
from subllm.progress import Progress
from subllm.runtime.request import Engine
from subllm.text.tokenizer import Tokenizer

_LOGGERS = ("lm_eval", "datasets")


def run_task(
    engine: Engine,
    tokenizer: Tokenizer,
    task: DomainTask,
    rows: TaskRows,
    *,
    seed: int,
    together: int,
    cache: AnswerCache | None,
    progress: Progress | None,
) -> DomainResult:
    """The chosen ones of `rows`; else as `evaluation.domains.run_domain`."""
    meteor = load_meteor() if task.metric == "meteor" else None
    began = time.monotonic()
    model = EngineLM(
        engine,
        tokenizer,
        seed=seed,
        together=together,
        cache=cache,
        progress=progress,
        title=task.name,
    )
    with _quiet():
        built = build(task, list(rows.chosen.values()), rows.shots, meteor)
        built.build_all_requests = _unseen(built.build_all_requests)
        found = evaluate(lm=model, task_dict={"tasks": {task.name: built}}, bootstrap_iters=0)
    scored = _scored(task, rows, found["samples"][task.name])
    low, high = interval([one.score for one in scored], seed)
    return DomainResult(
        task=task.name,
        domain=task.domain,
        model=engine.name,
        metric=task.metric if meteor is None else meteor.label,
        score=float(np.mean([one.score for one in scored])),
        low=low,
        high=high,
        metrics=means([one.metrics for one in scored]),
        source=rows.source,
        digest=rows.digest,
        rows=rows.total,
        shots=task.shots,
        samples=task.samples,
        temperature=task.temperature,
        seed=seed,
        scored=scored,
        scored_tokens=model.effort.scored,
        generated_tokens=model.effort.generated,
        cached=model.effort.cached,
        truncated=model.effort.truncated,
        seconds=time.monotonic() - began,
        harness=harness_version(),
        notes=notes_of(meteor, model.effort.truncated, engine.context_length),
    )


def _scored(task: DomainTask, rows: TaskRows, samples: list[dict[str, Any]]) -> tuple[Scored, ...]:
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
    return tuple(
        Scored(place, metrics[number][task.metric], metrics[number], answers[number])
        for number, place in enumerate(rows.chosen)
    )


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
