"""One task of a domain, measured on an engine by the harness. Imports the harness."""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.evaluator import evaluate

from subllm.evaluation.domains import DomainResult, DomainTask, Scored
from subllm.evaluation.lm_eval.answers import AnswerCache
from subllm.evaluation.lm_eval.configs import build
from subllm.evaluation.lm_eval.model import Effort, EngineLM
from subllm.evaluation.lm_eval.rows import TaskRows, load_rows
from subllm.evaluation.meteor import NOTE, WITHOUT_SYNONYMS, Meteor, load_meteor
from subllm.progress import Progress
from subllm.runtime.request import Engine
from subllm.text.tokenizer import Tokenizer

_RESAMPLES = 10_000
_LOGGERS = ("lm_eval", "datasets")


def run_task(
    engine: Engine,
    tokenizer: Tokenizer,
    task: DomainTask,
    *,
    limit: int | None,
    seed: int,
    data: Path | None,
    together: int,
    cache: AnswerCache | None,
    offline: bool,
    progress: Progress | None,
) -> DomainResult:
    """See `evaluation.domains.run_domain`."""
    rows = load_rows(task, data, limit=limit, seed=seed, offline=offline, progress=progress)
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
        metrics=_metrics(found["results"][task.name]),
        source=rows.source,
        digest=rows.digest,
        rows=rows.total,
        shots=task.shots,
        samples=task.samples,
        temperature=task.temperature,
        seed=seed,
        limit=limit,
        scored=scored,
        scored_tokens=model.effort.scored,
        generated_tokens=model.effort.generated,
        cached=model.effort.cached,
        truncated=model.effort.truncated,
        seconds=time.monotonic() - began,
        harness=f"lm_eval {version('lm_eval')}, {task.name} {built.VERSION}",
        notes=_notes(meteor, model.effort),
    )


def interval(scores: list[float], seed: int) -> tuple[float, float]:
    """95 % confidence interval of the mean, with questions drawn again with replacement."""
    values = np.array(scores)
    random = np.random.default_rng(seed)
    # One row at a time: thousands of questions ten thousand times would not fit memory.
    means = [values[random.integers(0, len(values), len(values))].mean() for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _scored(task: DomainTask, rows: TaskRows, samples: list[dict[str, Any]]) -> tuple[Scored, ...]:
    """The harness's samples as ours; it numbers the rows that it was given."""
    metric, _, wanted = task.metric.partition(",")
    places = list(rows.chosen)
    found = []
    for sample in samples:
        if wanted and sample["filter"] != wanted:
            continue
        generated = [text for texts in sample["resps"] for text in texts if isinstance(text, str)]
        found.append(Scored(places[sample["doc_id"]], float(sample[metric]), tuple(generated)))
    return tuple(sorted(found, key=lambda one: one.row))


def _metrics(results: dict[str, Any]) -> dict[str, float]:
    """Numbers by name; the harness adds ",none" where a task has one way to read answers."""
    return {
        name.removesuffix(",none"): float(value)
        for name, value in results.items()
        if isinstance(value, int | float) and "stderr" not in name and "," in name
    }


def _notes(meteor: Meteor | None, effort: Effort) -> tuple[str, ...]:
    notes = []
    if meteor is not None and meteor.label == WITHOUT_SYNONYMS:
        notes.append(NOTE)
    if effort.truncated:
        notes.append(
            f"{effort.truncated} prompts were cut on their left to fit the context; raise "
            "--context to have them whole"
        )
    return tuple(notes)


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
