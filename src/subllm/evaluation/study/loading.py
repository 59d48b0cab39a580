"""From the names of tasks to tasks with their data.

All of it is read before anything is made or measured, so that a wrong file shows at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from subllm.errors import UsageError
from subllm.evaluation.data import NAMED, OtherLanguageError, load_benchmark
from subllm.evaluation.domains import domain_task, tasks_of
from subllm.evaluation.held_out import SEQUENCES, held_out
from subllm.evaluation.run import Plan
from subllm.evaluation.study.ground import Ground
from subllm.evaluation.study.options import StudyOptions
from subllm.evaluation.study.tasks import (
    PERPLEXITY,
    PassTask,
    PerplexityTask,
    QuestionTask,
    StudyTask,
)
from subllm.progress import Progress
from subllm.routing.languages import LANGUAGES


def load_tasks(
    options: StudyOptions,
    grounds: Sequence[Ground],
    tools: tuple[tuple[str, str], ...],
    progress: Progress,
    *,
    threads: int | None = None,
    offline: bool = False,
) -> list[StudyTask]:
    """tools: what decides results beside the model, for the record.

    Raises UnknownNameError for a task or language that is not known, BenchmarkError for data
    that is missing or does not fit, AcquireError.
    """
    found: list[StudyTask] = []
    for task in options.tasks:
        names = tasks_of(task)
        if task == PERPLEXITY:
            found += _perplexity(options, grounds, tools)
        elif names:
            found += [_questions(options, task, name, tools, offline, progress) for name in names]
        else:
            found += _programs(options, task, tools, threads, offline, progress)
    return found


def task_names(tasks: Sequence[str]) -> tuple[str, ...]:
    """The tasks and, of domains, their tasks."""
    return tuple(dict.fromkeys(name for task in tasks for name in (task, *tasks_of(task))))


def _programs(
    options: StudyOptions,
    task: str,
    tools: tuple[tuple[str, str], ...],
    threads: int | None,
    offline: bool,
    progress: Progress,
) -> list[StudyTask]:
    found: list[StudyTask] = []
    files = (options.own[task],) if task in options.own else options.files
    languages = options.languages or LANGUAGES
    if not options.languages and not files and task in NAMED:
        languages = tuple(NAMED[task].files)
    without: list[OtherLanguageError] = []
    for language in languages:
        try:
            label, benchmark = load_benchmark(
                task, language, files, offline=offline, progress=progress
            )
        except OtherLanguageError as error:
            if options.languages:
                raise
            without.append(error)
            progress.note(f"{task}: the data has no {language} problems")
            continue
        plan = Plan(
            task=label,
            benchmark=benchmark.first(options.limit),
            samples=options.samples,
            ks=options.ks,
            temperature=options.temperature,
            top_p=options.top_p,
            max_tokens=options.max_tokens,
            seed=options.seed,
            form=options.form,
            together=options.together,
            tools=tools,
            threads=threads,
        )
        found.append(PassTask(plan, language))
    if not found:
        raise without[0]
    return found


def _perplexity(
    options: StudyOptions, grounds: Sequence[Ground], tools: tuple[tuple[str, str], ...]
) -> list[StudyTask]:
    path = options.own.get(PERPLEXITY)
    return [
        PerplexityTask(
            language,
            {
                ground.name: held_out(
                    language,
                    ground.tokenizer,
                    ground.prompt,
                    sequences=options.limit or SEQUENCES,
                    path=path,
                )
                for ground in grounds
            },
            tools,
        )
        for language in options.languages or LANGUAGES
    ]


def _questions(
    options: StudyOptions,
    asked: str,
    name: str,
    tools: tuple[tuple[str, str], ...],
    offline: bool,
    progress: Progress,
) -> StudyTask:
    # Imported late: tables of rows need more of the optional part `eval`.
    from subllm.evaluation import lm_eval
    from subllm.evaluation.lm_eval.rows import load_rows

    lm_eval.require()
    task = domain_task(name)
    data = _rows_of(options, asked, name)
    rows = load_rows(
        task, data, limit=options.limit, seed=options.seed, offline=offline, progress=progress
    )
    return QuestionTask(
        task,
        rows.digest,
        len(rows.chosen),
        float(sum(len(str(row)) for row in rows.chosen.values())),
        lm_eval.harness_version(),
        {
            "limit": options.limit, "seed": options.seed, "data": data,
            "together": options.together,
        },
        tools,
    )  # fmt: skip


def _rows_of(options: StudyOptions, asked: str, name: str) -> Path | None:
    """Of `name=PATH`, or of a whole domain's directory, which has one for each task."""
    if name in options.own:
        return options.own[name]
    return options.own[asked] / name if asked in options.own else None


def check_files(options: StudyOptions) -> None:
    """Raises UsageError when --data is given as a plain file and no task reads such."""
    if options.files and all(tasks_of(task) or task == PERPLEXITY for task in options.tasks):
        raise UsageError(
            f"{options.files[0].name} is of no task here; write TASK=PATH, as in "
            f"--data {options.tasks[0]}=PATH"
        )
