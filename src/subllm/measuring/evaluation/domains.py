"""The domains beside code and the tasks that measure them: common-sense reasoning, mathematics
and translation, as the paper measures them, through lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from subllm.errors import UnknownNameError

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
    samples   answers to each question, of which the best counts; more than one are
              sampled, with `temperature`
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
