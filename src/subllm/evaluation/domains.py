"""The domains beside code: which tasks measure them, and what one run of a task gives.

Common-sense reasoning, mathematics and translation, as the paper measures them, through
lm-evaluation-harness. What the tasks measure is data, here; how the harness is asked is
`evaluation.lm_eval`, imported when a task runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from subllm.errors import UnknownNameError
from subllm.progress import Progress
from subllm.runtime.request import Engine
from subllm.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from subllm.evaluation.lm_eval.answers import AnswerCache

Domain = Literal["csr", "math", "translation"]


@dataclass(frozen=True)
class DomainTask:
    """A task and the data that it asks from.

    metric    which of the task's numbers is its score, as the harness spells it
    config    configuration ("subset") of the set on the hub
    split     that is asked; none of its rows may calibrate
    fields    that a row must have; a dot leads into one
    revision  commit or branch of the set
    rows      "odd": every other row, because the set has one split and the even rows
              calibrate
    most      of more rows, so many are asked, always the same ones
    shots     worked examples before each question: the first rows of `shots_split`
    samples   answers to each question, of which the best counts; more than one are drawn
              with `temperature`
    """

    name: str
    domain: Domain
    metric: str
    repo: str
    config: str
    split: str
    fields: tuple[str, ...]
    revision: str = "main"
    rows: Literal["all", "odd"] = "all"
    most: int | None = None
    shots: int = 0
    shots_split: str = "train"
    samples: int = 1
    temperature: float = 0.0


DOMAIN_TASKS: Mapping[str, DomainTask] = {
    task.name: task
    for task in (
        DomainTask(
            "openbookqa",
            "csr",
            "acc",
            "allenai/openbookqa",
            "main",
            "test",
            ("question_stem", "choices", "answerKey"),
            revision="388097ea7776314e93a529163e0fea805b8a6454",
        ),
        DomainTask(
            "winogrande",
            "csr",
            "acc",
            "allenai/winogrande",
            "winogrande_xl",
            "validation",  # the test split has no answers
            ("sentence", "option1", "option2", "answer"),
        ),
        DomainTask(
            "boolq",
            "csr",
            "acc",
            "aps/super_glue",
            "boolq",
            "validation",  # the test split has no answers
            ("passage", "question", "label"),
        ),
        DomainTask(
            "arc_easy",
            "csr",
            "acc",
            "allenai/ai2_arc",
            "ARC-Easy",
            "test",
            ("question", "choices", "answerKey"),
        ),
        DomainTask(
            "arc_challenge",
            "csr",
            "acc",
            "allenai/ai2_arc",
            "ARC-Challenge",
            "test",
            ("question", "choices", "answerKey"),
        ),
        DomainTask(
            "hellaswag",
            "csr",
            "acc",
            "Rowan/hellaswag",
            "default",
            "validation",  # the test split has no answers
            ("activity_label", "ctx_a", "ctx_b", "endings", "label"),
        ),
        DomainTask(
            "gsm8k",
            "math",
            "exact_match,strict-match",
            "openai/gsm8k",
            "main",
            "test",
            ("question", "answer"),
            shots=8,
        ),
        DomainTask(
            "wmt14",
            "translation",
            "meteor",
            "wmt/wmt14",
            "fr-en",
            "test",
            ("translation.fr", "translation.en"),
            samples=5,
            temperature=0.7,
        ),
        DomainTask(
            "opus_books",
            "translation",
            "meteor",
            "Helsinki-NLP/opus_books",
            "en-fr",
            "train",
            ("translation.fr", "translation.en"),
            revision="1f9f6191d0e91a3c539c2595e2fe48fc1420de9b",
            rows="odd",
            most=1000,
            samples=5,
            temperature=0.7,
        ),
    )
}
"""By name. The two translation tasks go from French to English."""


@dataclass(frozen=True)
class Scored:
    """One question of a task.

    row      its place in the split, from 0
    score    0 to 1: the task's own of the `metrics`
    metrics  all that the harness counts, by its names
    answers  what was generated, () where choices were compared
    """

    row: int
    score: float
    metrics: Mapping[str, float]
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class DomainResult:
    """What one run of a task gave.

    metric       what `score` is: "acc", "exact_match,strict-match", "METEOR",
                 "METEOR (exact + stem)"
    score        mean over the questions, 0 to 1
    low, high    95 % confidence interval, by bootstrap over the questions
    metrics      means of all that the harness counts, by its names
    source       file or directory, or "hub:REPOSITORY/CONFIG/SPLIT@REVISION"
    digest       sha256-<hex> over all rows of the split as canonical JSON, worked examples
                 first where there are any
    rows         how many the split has
    scored       the questions that were asked, in the split's order
    samples      answers to each question, drawn with `temperature` when more than one
    scored_tokens, generated_tokens   that the engine ran, answers of the cache left out
    cached       answers that came from the cache
    truncated    prompts that lost their beginning, as the context is too short for them
    harness      version of lm-evaluation-harness, and of the task in it
    notes        what a reader of the score must know
    """

    task: str
    domain: Domain
    model: str
    metric: str
    score: float
    low: float
    high: float
    metrics: Mapping[str, float]
    source: str
    digest: str
    rows: int
    shots: int
    samples: int
    temperature: float
    seed: int
    scored: tuple[Scored, ...]
    scored_tokens: int
    generated_tokens: int
    cached: int
    truncated: int
    seconds: float
    harness: str
    notes: tuple[str, ...]


def domain_task(name: str) -> DomainTask:
    """Raises UnknownNameError, naming the nearest."""
    task = DOMAIN_TASKS.get(name)
    if task is None:
        raise UnknownNameError("task", name, DOMAIN_TASKS, f"known: {', '.join(DOMAIN_TASKS)}")
    return task


def tasks_of(name: str) -> tuple[str, ...]:
    """The tasks of a domain, or the one of this name; none for another name."""
    found = tuple(task.name for task in DOMAIN_TASKS.values() if task.domain == name)
    return found or ((name,) if name in DOMAIN_TASKS else ())


def run_domain(
    engine: Engine,
    tokenizer: Tokenizer,
    task: str,
    *,
    limit: int | None = None,
    seed: int = 0,
    data: Path | None = None,
    together: int = 8,
    cache: AnswerCache | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> DomainResult:
    """Measures a task of DOMAIN_TASKS on an engine that is otherwise idle.

    limit     how many questions are asked; which ones, `seed` decides
    seed      also decides what is drawn where answers are sampled
    data      a file with the rows of the task's split, or a directory with a file for each
              split (test.jsonl, train.parquet); without it the rows come from the hub
    together  answers that are generated at once
    cache     of answers given before; must be of this very model and backend

    Raises UnknownNameError, MissingExtraError without the optional part `eval`,
    BenchmarkError for data that does not fit, AcquireError for data that cannot be
    fetched, EngineError, StoreError for a cache that cannot be used.
    """
    found = domain_task(task)
    from subllm.evaluation import lm_eval

    lm_eval.require()
    from subllm.evaluation.lm_eval.rows import load_rows
    from subllm.evaluation.lm_eval.run import run_task

    rows = load_rows(found, data, limit=limit, seed=seed, offline=offline, progress=progress)
    return run_task(
        engine,
        tokenizer,
        found,
        rows,
        seed=seed,
        together=together,
        cache=cache,
        progress=progress,
    )
