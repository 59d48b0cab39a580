"""Which measure answers to the name of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from subllm.errors import UnknownNameError
from subllm.measuring.evaluation.bench import Bench, TextSide
from subllm.measuring.evaluation.builtin import BUILTIN
from subllm.measuring.evaluation.domains import DOMAIN_TASKS, tasks_of
from subllm.measuring.evaluation.forms import FORMS
from subllm.measuring.evaluation.held_out import LENGTH, SEQUENCES
from subllm.measuring.evaluation.measures.agreement import PROMPT_TOKENS, PROMPTS, Agreement
from subllm.measuring.evaluation.measures.domain import load_questions
from subllm.measuring.evaluation.measures.measure import Measure
from subllm.measuring.evaluation.measures.pass_at_k import Programs, load_programs
from subllm.measuring.evaluation.measures.perplexity import Perplexity
from subllm.measuring.evaluation.measures.retention import Retention
from subllm.measuring.evaluation.measures.text import load_texts
from subllm.measuring.evaluation.options import TaskOptions

Loader = Callable[[str, TaskOptions, Bench, Sequence[TextSide]], list[Measure]]

MEASURES: Mapping[str, Loader] = {
    "perplexity": partial(load_texts, Perplexity, SEQUENCES, LENGTH),
    "agreement": partial(load_texts, Agreement, PROMPTS, PROMPT_TOKENS),
    **{task.domain: load_questions for task in DOMAIN_TASKS.values()},
    **dict.fromkeys(DOMAIN_TASKS, load_questions),
}
"""Any other name is a code benchmark, or a file of problems."""


def load_measures(
    task: str, options: TaskOptions, bench: Bench, texts: Sequence[TextSide]
) -> list[Measure]:
    """One for each language, or for each task of a domain, all their data read: what is wrong
    with it shows before anything is measured.

    texts  of the bases whose models are to be measured
    Raises UnknownNameError for a task that is not known, BenchmarkError and its kin for data
    that is missing or does not fit, AcquireError for data that cannot be fetched.
    """
    load = MEASURES.get(task)
    if load is None:
        known = task in (*FORMS, BUILTIN)
        if not known and (options.files or not Path(task).expanduser().is_file()):
            told = [BUILTIN, *FORMS, *(name for name in MEASURES if name not in DOMAIN_TASKS)]
            hint = f"tasks are {', '.join(told)}, or a file of problems"
            raise UnknownNameError("task", task, (BUILTIN, *FORMS, *MEASURES), hint)
        load = partial(load_programs, kind=Retention if task == BUILTIN else Programs)
    return load(task, options, bench, texts)


def reads_problems(task: str) -> bool:
    """Whether files of problems may be for this task; others have data of their own."""
    return task not in MEASURES


def with_parts(tasks: Sequence[str]) -> tuple[str, ...]:
    """The tasks and, of domains, their tasks."""
    return tuple(dict.fromkeys(name for task in tasks for name in (task, *tasks_of(task))))
