"""What the models of a study are measured on: code benchmarks, perplexity, domains.

All data is read before anything is measured, so that a wrong file shows at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from subllm.calibration.sampler import digest
from subllm.errors import UnknownNameError, UsageError
from subllm.evaluation.data import NAMED, OtherLanguageError, load_benchmark
from subllm.evaluation.domain_records import measure_domain
from subllm.evaluation.domains import DomainTask, domain_task, tasks_of
from subllm.evaluation.held_out import SEQUENCES, held_out
from subllm.evaluation.perplexity import measure_perplexity
from subllm.evaluation.records import Result
from subllm.evaluation.run import Plan, evaluate
from subllm.evaluation.study.bench import Bench
from subllm.evaluation.study.estimate import Load
from subllm.evaluation.study.ground import Ground
from subllm.evaluation.study.options import StudyOptions
from subllm.progress import Progress
from subllm.routing.languages import LANGUAGES, canonical

PERPLEXITY = "perplexity"
_LETTERS_PER_TOKEN = 3.5
_COMPLETION = 75  # tokens of a function body, as measured on HumanEval-X
_CHECK_SECONDS = {"python": 0.1, "javascript": 0.15, "cpp": 1.0, "java": 0.6}  # of one core


class StudyTask(Protocol):
    """language is that of the task; of a domain's task, the domain."""

    @property
    def name(self) -> str: ...

    @property
    def language(self) -> str: ...

    @property
    def domain(self) -> str: ...

    @property
    def asked(self) -> int:
        """Problems, questions or sequences."""

    @property
    def samples(self) -> int: ...

    def facts(self, ground: Ground) -> dict[str, Any]:
        """All that decides a result beside the model and the engine, JSON-ready."""

    def load(self, ground: Ground) -> Load: ...

    def measure(self, bench: Bench, model: str, ground: Ground) -> Result: ...


@dataclass(frozen=True)
class PassTask:
    """pass@k on a code benchmark in one language."""

    plan: Plan
    language: str
    domain: str = "code"

    @property
    def name(self) -> str:
        return self.plan.task

    @property
    def asked(self) -> int:
        return len(self.plan.benchmark.problems)

    @property
    def samples(self) -> int:
        return self.plan.samples

    def facts(self, ground: Ground) -> dict[str, Any]:
        plan = self.plan
        return {
            "task": plan.task, "language": self.language, "data": plan.benchmark.digest,
            "asked": self.asked, "samples": plan.samples, "ks": list(plan.ks), "form": plan.form,
            "temperature": plan.temperature, "top_p": plan.top_p, "seed": plan.seed,
            "max_tokens": plan.max_tokens,
        }  # fmt: skip

    def load(self, ground: Ground) -> Load:
        problems = self.plan.benchmark.problems
        letters = sum(len(problem.prompt) for problem in problems)
        programs = len(problems) * self.plan.samples
        return Load(
            prompt_tokens=letters / _LETTERS_PER_TOKEN,
            new_tokens=programs * min(_COMPLETION, self.plan.max_tokens),
            core_seconds=programs * _CHECK_SECONDS[self.language],
        )

    def measure(self, bench: Bench, model: str, ground: Ground) -> Result:
        tool = bench.toolchain(self.language)
        return evaluate(
            bench.store, model, self.plan, tool, bench.engines, bench.records, bench.progress
        )


@dataclass(frozen=True)
class PerplexityTask:
    """tokens: of held-out text, by base, with where it is from."""

    language: str
    tokens: dict[str, tuple[npt.NDArray[np.int32], str]]
    tools: tuple[tuple[str, str], ...]
    name: str = PERPLEXITY
    domain: str = "text"
    samples: int = 1

    @property
    def asked(self) -> int:
        return max(len(tokens) for tokens, _ in self.tokens.values())

    def facts(self, ground: Ground) -> dict[str, Any]:
        tokens, _ = self.tokens[ground.name]
        return {"task": self.name, "language": self.language, "data": digest(tokens)}

    def load(self, ground: Ground) -> Load:
        return Load(prompt_tokens=float(self.tokens[ground.name][0].size))

    def measure(self, bench: Bench, model: str, ground: Ground) -> Result:
        tokens, source = self.tokens[ground.name]
        return measure_perplexity(
            bench.store, model, self.language, tokens, source, bench.engines, bench.records,
            bench.progress, tools=self.tools, threads=bench.threads,
        )  # fmt: skip


@dataclass(frozen=True)
class QuestionTask:
    """A task of a domain. digest, asked: of its rows, and how many of them are asked."""

    task: DomainTask
    digest: str
    asked: int
    letters: float
    version: str  # of the harness
    options: dict[str, Any]  # limit, seed, data, together: as of `measure_domain`
    tools: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def language(self) -> str:
        return self.task.domain

    @property
    def domain(self) -> str:
        return self.task.domain

    @property
    def samples(self) -> int:
        return self.task.samples

    def facts(self, ground: Ground) -> dict[str, Any]:
        return {
            "task": self.name, "data": self.digest, "asked": self.asked,
            "seed": self.options["seed"], "lm_eval": self.version,
        }  # fmt: skip

    def load(self, ground: Ground) -> Load:
        rows = self.letters / _LETTERS_PER_TOKEN * (1 + self.task.shots)
        answers = self.asked * self.task.samples * _COMPLETION if self.domain != "csr" else 0
        return Load(prompt_tokens=rows, new_tokens=answers)

    def measure(self, bench: Bench, model: str, ground: Ground) -> Result:
        return measure_domain(
            bench.store, model, self.name, bench.engines, bench.records, bench.progress,
            offline=bench.offline, tools=self.tools, threads=bench.threads, **self.options,
        )  # fmt: skip


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


def parse_languages(text: str) -> tuple[str, ...]:
    """`python,js`, `all`; () for nothing. Raises UnknownNameError."""
    if text == "all":
        return LANGUAGES
    names = tuple(dict.fromkeys(canonical(part.strip()) for part in text.split(",") if part))
    for name in names:
        if name not in LANGUAGES:
            raise UnknownNameError("language", name, LANGUAGES)
    return names


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
