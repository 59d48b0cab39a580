"""What the models of a study are measured on: code benchmarks, perplexity, domains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from subllm.calibration.sampler import digest
from subllm.evaluation.domain_records import measure_domain
from subllm.evaluation.domains import DomainTask
from subllm.evaluation.perplexity import measure_perplexity
from subllm.evaluation.records import Result
from subllm.evaluation.run import Plan, evaluate
from subllm.evaluation.study.bench import Bench
from subllm.evaluation.study.estimate import Load
from subllm.evaluation.study.ground import Ground

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
