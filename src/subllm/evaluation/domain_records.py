"""One measurement of a domain task: a model, a task, one records file."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from subllm.evaluation import lm_eval
from subllm.evaluation.domain_scores import interval, means, notes_of
from subllm.evaluation.domains import DomainResult, DomainTask, domain_task
from subllm.evaluation.engines import OpenEngine
from subllm.evaluation.facts import machine_facts, model_facts, now
from subllm.evaluation.lm_eval.answers import AnswerCache
from subllm.evaluation.lm_eval.options import DEFAULT_TOKENS
from subllm.evaluation.lm_eval.rows import load_rows
from subllm.evaluation.meteor import load_meteor
from subllm.evaluation.records import (
    HARNESS,
    DataFacts,
    Question,
    RecordFile,
    Result,
    RunHeader,
    Sampling,
    Summary,
)
from subllm.progress import Progress
from subllm.store.manifest import canonical_json
from subllm.store.store import Store
from subllm.store.tokenizers import open_tokenizer

CONTEXT = 4096
"""Tokens that prompt and answer may have, in models that have so many: enough for the worked
examples of every task."""
ANSWERS = "answers.sqlite"


def measure_domain(
    store: Store,
    model: str,
    task: str,
    open_engine: OpenEngine,
    directory: Path,
    progress: Progress,
    *,
    limit: int | None = None,
    seed: int = 0,
    data: Path | None = None,
    together: int = 8,
    offline: bool = False,
    tools: tuple[tuple[str, str], ...] = (),
    threads: int | None = None,
) -> Result:
    """Goes on where an earlier run was; a complete one is only counted. Runs that differ in
    `limit` alone share a file, in which every question stands once.

    limit, seed, data, together, offline   as in `run_domain`
    Raises what that raises, UnknownNameError for a model, LockedError while another process
    does the same.
    """
    asked = domain_task(task)
    lm_eval.require()
    rows = load_rows(asked, data, limit=limit, seed=seed, offline=offline, progress=progress)
    meteor = load_meteor() if asked.metric == "meteor" else None
    metric = asked.metric if meteor is None else meteor.label
    facts = model_facts(store, model)
    header = RunHeader(
        task=asked.name,
        language=asked.domain,
        model=facts,
        data=DataFacts(
            source=rows.source, form=f"as {asked.repo}", digest=rows.digest, rows=rows.total
        ),
        prompt=None if asked.domain == "csr" else "raw",
        sampling=_sampling(asked, seed),
        harness=HARNESS,
        tools={
            **dict(tools),
            "harness": lm_eval.harness_version(),
            "worked examples": str(asked.shots),
            "answers": str(asked.samples),
            "metric": metric,
        },
        machine=machine_facts(threads),
        created=now(),
    )
    manifest = store.model(model)
    context = min(CONTEXT, manifest.prompt.context_length)
    with RecordFile(directory, header) as records:
        began = time.monotonic()
        known = {line.row for line in records.of(Question)}
        missing = {place: row for place, row in rows.chosen.items() if place not in known}
        found: DomainResult | None = None
        if missing:
            # Imported late: the harness takes two seconds.
            from subllm.evaluation.lm_eval.run import run_task

            identity = canonical_json([facts.digest, dict(tools)]).decode()
            with AnswerCache(directory / ANSWERS, identity) as cache:
                found = run_task(
                    open_engine(model, together, context),
                    open_tokenizer(store, manifest),
                    asked,
                    replace(rows, chosen=missing),
                    seed=seed,
                    together=together,
                    cache=cache,
                    progress=progress,
                )
            for one in found.scored:
                records.append(
                    Question(
                        run=records.key,
                        row=one.row,
                        score=one.score,
                        metrics=dict(one.metrics),
                        answers=one.answers,
                    )
                )
        lines = {line.row: line for line in records.of(Question)}
        chosen = [lines[place] for place in rows.chosen]
        scores = [line.score for line in chosen]
        low, high = interval(scores, seed)
        earlier = [line.figures for line in records.of(Summary)]
        truncated = (earlier[-1]["truncated"] if earlier else 0) + (
            found.truncated if found is not None else 0
        )
        figures: dict[str, Any] = {
            "metric": metric,
            "score": sum(scores) / len(scores),
            "low": low,
            "high": high,
            "metrics": means([line.metrics for line in chosen]),
            "questions": len(chosen),
            "truncated": truncated,
            "notes": list(notes_of(meteor, truncated, context)),
        }
        return Result(header, _conclude(records, figures, found, began), records.path, len(missing))


def _conclude(
    records: RecordFile, figures: dict[str, Any], found: DomainResult | None, began: float
) -> dict[str, Any]:
    """The summary of a run; that of an earlier one where nothing was added since."""
    if found is None:
        for summary in reversed(list(records.of(Summary))):
            if figures.items() <= summary.figures.items():
                return summary.figures
    figures |= {
        "scored_tokens": 0 if found is None else found.scored_tokens,
        "generated_tokens": 0 if found is None else found.generated_tokens,
        "wall_seconds": round(time.monotonic() - began, 2),
    }
    records.append(Summary(run=records.key, figures=figures))
    return figures


def _sampling(task: DomainTask, seed: int) -> Sampling | None:
    """How answers are drawn; None where choices are compared."""
    if task.domain == "csr":
        return None
    return Sampling(
        temperature=task.temperature,
        top_p=1.0,
        max_tokens=DEFAULT_TOKENS,
        seed=seed if task.temperature else 0,
    )
