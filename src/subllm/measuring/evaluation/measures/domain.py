"""Tasks of the domains beside code, through lm-evaluation-harness: accuracy of choices, exact
match, METEOR."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from subllm.measuring.evaluation import lm_eval
from subllm.measuring.evaluation.bench import Bench, TextSide
from subllm.measuring.evaluation.domains import DomainTask, domain_task, tasks_of
from subllm.measuring.evaluation.intervals import mean_interval
from subllm.measuring.evaluation.lm_eval.answers import AnswerCache, Effort
from subllm.measuring.evaluation.lm_eval.options import DEFAULT_TOKENS
from subllm.measuring.evaluation.lm_eval.rows import TaskRows, load_rows
from subllm.measuring.evaluation.measures.measure import (
    COMPLETION,
    LETTERS_PER_TOKEN,
    Load,
    Measure,
)
from subllm.measuring.evaluation.meteor import NOTE, WITHOUT_SYNONYMS, Meteor, load_meteor
from subllm.measuring.evaluation.options import TaskOptions
from subllm.measuring.evaluation.record_file import RecordFile
from subllm.measuring.evaluation.records import DataFacts, Question, Result, Sampling, Summary
from subllm.measuring.report.study.records import Score
from subllm.models.store.manifest import canonical_json
from subllm.models.store.store import Store

CONTEXT = 4096
"""Tokens that prompt and answer may have, in models that have so many: enough for the worked
examples of every task."""
ANSWERS = "answers.sqlite"


def load_questions(
    task: str, options: TaskOptions, bench: Bench, texts: Sequence[TextSide]
) -> list[Measure]:
    """The tasks of a domain, or one of them by name.

    Raises MissingExtraError without the optional part `eval`, BenchmarkError for rows that are
    missing or of another form, TableError, AcquireError.
    """
    lm_eval.require()
    found: list[Measure] = []
    for name in tasks_of(task):
        data = options.own.get(name)
        if data is None and task in options.own:
            data = options.own[task] / name
        entry = domain_task(name)
        rows = load_rows(
            entry, data, limit=options.limit, seed=options.seed, offline=bench.offline,
            progress=bench.progress,
        )  # fmt: skip
        found.append(Questions(entry, rows, options.seed, options.together))
    return found


@dataclass(frozen=True)
class Questions:
    """One task of a domain. Of runs that differ in the limit alone, the records share a file,
    in which every question stands once.

    seed      decides what is sampled where answers are, and the interval
    together  answers that are generated at once
    """

    entry: DomainTask
    rows: TaskRows
    seed: int
    together: int

    @property
    def task(self) -> str:
        return self.entry.name

    @property
    def language(self) -> str:
        return self.entry.domain

    @property
    def domain(self) -> str:
        return self.entry.domain

    @property
    def asked(self) -> int:
        return len(self.rows.chosen)

    @property
    def samples(self) -> int:
        return self.entry.samples

    def facts(self, store: Store, text: TextSide) -> dict[str, Any]:
        return {
            "task": self.task, "data": self.rows.digest, "asked": self.asked, "seed": self.seed,
            "lm_eval": lm_eval.harness_version(),
        }  # fmt: skip

    def load(self, text: TextSide) -> Load:
        letters = sum(len(str(row)) for row in self.rows.chosen.values())
        answers = self.asked * self.samples * COMPLETION if self.domain != "csr" else 0
        prompts = letters / LETTERS_PER_TOKEN * (1 + self.entry.shots)
        return Load(prompt_tokens=prompts, new_tokens=answers)

    def prepare(self, bench: Bench) -> None:
        pass

    def run(self, bench: Bench, model: str) -> Result:
        entry, rows = self.entry, self.rows
        meteor = load_meteor() if entry.metric == "meteor" else None
        metric = entry.metric if meteor is None else meteor.label
        header = bench.header(
            model,
            self.task,
            self.language,
            DataFacts(
                source=rows.source, form=f"as {entry.repo}", digest=rows.digest, rows=rows.total
            ),
            prompt=None if self.domain == "csr" else "raw",
            sampling=self._sampling(),
            tools={
                "harness": lm_eval.harness_version(),
                "worked examples": str(entry.shots),
                "answers": str(entry.samples),
                "metric": metric,
            },
        )
        context = min(CONTEXT, bench.store.model(model).prompt.context_length)
        with RecordFile(bench.records, header) as records:
            began = time.monotonic()
            known = {line.row for line in records.of(Question)}
            missing = {place: row for place, row in rows.chosen.items() if place not in known}
            effort = Effort()
            if missing:
                # Imported late: the harness takes two seconds.
                from subllm.measuring.evaluation.lm_eval.run import Asking, run_task

                decides = canonical_json([header.model.digest, bench.engines.tools()]).decode()
                with AnswerCache(bench.records / ANSWERS, decides) as cache:
                    questions, effort = run_task(
                        bench.engines(model, self.together, context),
                        bench.text(model).tokenizer,
                        entry,
                        replace(rows, chosen=missing),
                        meteor,
                        Asking(self.seed, self.together, cache, bench.progress),
                        records.key,
                    )
                for question in questions:
                    records.append(question)
            lines = {line.row: line for line in records.of(Question)}
            earlier = [line.figures for line in records.of(Summary)]
            truncated = effort.truncated + (earlier[-1]["truncated"] if earlier else 0)
            figures = {
                "metric": metric,
                **figures_of([lines[place] for place in rows.chosen], self.seed),
                "truncated": truncated,
                "notes": _notes(meteor, truncated, context),
            }
            spent = {
                "scored_tokens": effort.scored,
                "generated_tokens": effort.generated,
                "wall_seconds": round(time.monotonic() - began, 2),
            }
            figures = records.conclude(figures, len(missing), spent)
            value, low, high = (figures[name] for name in ("score", "low", "high"))
            scores = (Score(name=metric, value=value, low=low, high=high),)
            return Result(header, figures, records.path, len(missing), scores)

    def _sampling(self) -> Sampling | None:
        """How answers are sampled; None where choices are compared."""
        if self.domain == "csr":
            return None
        return Sampling(
            temperature=self.entry.temperature,
            top_p=1.0,
            max_tokens=DEFAULT_TOKENS,
            seed=self.seed if self.entry.temperature else 0,
        )


def figures_of(questions: Sequence[Question], seed: int) -> dict[str, Any]:
    """The score with its 95 % interval, and the mean of each metric that the harness counts."""
    scores = [question.score for question in questions]
    metrics: list[Mapping[str, float]] = [question.metrics for question in questions]
    low, high = mean_interval(scores, seed)
    return {
        "score": sum(scores) / len(scores),
        "low": low,
        "high": high,
        "metrics": {name: float(np.mean([one[name] for one in metrics])) for name in metrics[0]},
        "questions": len(questions),
    }


def _notes(meteor: Meteor | None, truncated: int, context: int) -> list[str]:
    """What a reader of the score must know. context: in tokens."""
    found = []
    if meteor is not None and meteor.label == WITHOUT_SYNONYMS:
        found.append(NOTE)
    if truncated:
        found.append(
            f"{truncated} prompts lost their beginning, as they are longer than the context of "
            f"{context} tokens"
        )
    return found
