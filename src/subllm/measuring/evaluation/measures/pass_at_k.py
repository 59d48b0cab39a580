"""pass@k: the model writes programs, which are compiled and run against tests.

Programs are run while the next completions are still being written.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from subllm.languages import LANGUAGES
from subllm.machine import usable_cores
from subllm.measuring.evaluation.bench import Bench, TextSide
from subllm.measuring.evaluation.canonical import CanonicalResult, check_canonical
from subllm.measuring.evaluation.data import NAMED, OtherLanguageError, load_benchmark
from subllm.measuring.evaluation.generate import generate
from subllm.measuring.evaluation.intervals import pass_at_k
from subllm.measuring.evaluation.judge import Judge
from subllm.measuring.evaluation.measures.measure import (
    COMPLETION,
    LETTERS_PER_TOKEN,
    Load,
    Measure,
)
from subllm.measuring.evaluation.options import TaskOptions
from subllm.measuring.evaluation.problems import Benchmark
from subllm.measuring.evaluation.prompts import Prompter, choose_form
from subllm.measuring.evaluation.record_file import RecordFile
from subllm.measuring.evaluation.records import Canonical, DataFacts, Result, Sample
from subllm.measuring.evaluation.toolchains import Verdict
from subllm.measuring.report.study.records import Score
from subllm.models.store.store import Store

WALL_SECONDS = {"python": 10.0, "javascript": 10.0, "cpp": 10.0, "java": 15.0}
"""For running one program, generous because others run beside it."""
_CHECK_SECONDS = {"python": 0.1, "javascript": 0.15, "cpp": 1.0, "java": 0.6}  # of one core


def load_programs(
    task: str,
    options: TaskOptions,
    bench: Bench,
    texts: Sequence[TextSide],
    kind: type[Programs] | None = None,
) -> list[Measure]:
    """A code benchmark in each language asked for, or else in each that the data has.

    Raises UsageError for samples that cannot give the k, BenchmarkError for data that is
    missing or does not fit, TableError, AcquireError.
    """
    options.check_samples()
    files = (options.own[task],) if task in options.own else options.files
    languages = options.languages or LANGUAGES
    if not options.languages and not files and task in NAMED:
        languages = tuple(NAMED[task].files)
    found: list[Measure] = []
    without: list[OtherLanguageError] = []
    for language in languages:
        try:
            label, benchmark = load_benchmark(
                task, language, files, offline=bench.offline, progress=bench.progress
            )
        except OtherLanguageError as error:
            if options.languages:
                raise
            without.append(error)
            bench.progress.note(f"{task}: the data has no {language} problems")
            continue
        found.append((kind or Programs)(label, language, benchmark.first(options.limit), options))
    if not found:
        raise without[0]
    return found


@dataclass(frozen=True)
class Programs:
    """A code benchmark in one language. Of runs that differ only in samples, ks or in how many
    of the problems are asked, the records share a file."""

    task: str
    language: str
    benchmark: Benchmark
    options: TaskOptions
    domain: str = "code"

    @property
    def asked(self) -> int:
        return len(self.benchmark.problems)

    @property
    def samples(self) -> int:
        return self.options.samples

    def facts(self, store: Store, text: TextSide) -> dict[str, Any]:
        options = self.options
        return {
            "task": self.task, "language": self.language, "data": self.benchmark.digest,
            "asked": self.asked, "samples": options.samples, "ks": list(options.ks),
            "form": options.form, "temperature": options.temperature, "top_p": options.top_p,
            "seed": options.seed, "max_tokens": options.max_tokens,
        }  # fmt: skip

    def load(self, text: TextSide) -> Load:
        letters = sum(len(problem.prompt) for problem in self.benchmark.problems)
        programs = self.asked * self.samples
        return Load(
            prompt_tokens=letters / LETTERS_PER_TOKEN,
            new_tokens=programs * min(COMPLETION, self.options.max_tokens),
            core_seconds=programs * _CHECK_SECONDS[self.language],
        )

    def prepare(self, bench: Bench) -> None:
        """Raises SandboxError, ToolchainMissingError."""
        bench.toolchain(self.language)

    def run(self, bench: Bench, model: str) -> Result:
        """Also raises EvaluationError when no canonical solution passes."""
        problems, options, progress = self.benchmark.problems, self.options, bench.progress
        text, tool = bench.text(model), bench.toolchain(self.language)
        form = choose_form(options.form, problems[0], text.tokenizer)
        prompter = Prompter(text.tokenizer, text.prompt, form)
        version = f"{tool.language} {tool.version()}"
        header = bench.header(
            model,
            self.task,
            self.language,
            DataFacts(
                source=self.benchmark.source,
                form=self.benchmark.form,
                digest=self.benchmark.digest,
                rows=self.benchmark.rows,
            ),
            prompt=form,
            sampling=options.sampling,
            tools={"toolchain": version, **prompter.facts},
        )
        seconds = WALL_SECONDS[self.language]

        def check(program: str) -> Verdict:
            return tool.check(program, wall_seconds=seconds)

        # Not a context manager: leaving one waits for programs that hang, whom the sandbox's
        # owner is about to end.
        pool = ThreadPoolExecutor(usable_cores(), "check")
        try:
            with RecordFile(bench.records, header) as records:
                began = time.monotonic()
                canonical = check_canonical(problems, check, pool, bench.records, version, progress)
                known = {line.problem for line in records.of(Canonical)}
                for line in canonical.verdicts:
                    if line.problem not in known:
                        records.append(line)
                checked = time.monotonic()
                judge = Judge(records, problems, form, check, pool)
                asks = judge.asks(prompter, options.sampling, self.samples)
                total = self.asked * self.samples
                if len(asks) < total:
                    progress.note(f"{total - len(asks)} of {total} samples are there already")
                if asks:
                    longest = max(ask.tokens for ask in asks)
                    engine = bench.engines(model, options.together, longest)
                    judge.run(generate(engine, asks, options.together), len(asks), progress)
                spent = {
                    "canonical": round(checked - began, 2),
                    "samples": round(time.monotonic() - checked, 2),
                }
                wanted = {(problem.id, i) for problem in problems for i in range(self.samples)}
                samples = [s for s in records.of(Sample) if (s.problem, s.index) in wanted]
                figures = records.conclude(
                    self._figures(samples, canonical),
                    len(asks),
                    {"new_samples": len(asks), "wall_seconds": spent},
                )
                scores = tuple(Score(name=f"pass@{one['k']}", **one) for one in figures["pass"])
                passed = dict(sorted(_passed(samples).items()))
                return Result(header, figures, records.path, len(asks), scores, passed)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _figures(self, samples: Sequence[Sample], canonical: CanonicalResult) -> dict[str, Any]:
        """Over the problems and samples asked for; the file may hold more."""
        passed = _passed(samples)
        counts = [(self.samples, passed[problem.id]) for problem in self.benchmark.problems]
        exact = [s.exact for s in samples if s.exact is not None]
        count, seed = len(counts), self.options.seed
        figures: dict[str, Any] = {
            "problems": count,
            "samples_per_problem": self.samples,
            "pass": [asdict(pass_at_k(counts, k, seed)) for k in self.options.ks],
            "status": dict(sorted(Counter(s.status for s in samples).items())),
            "ended": dict(sorted(Counter(s.ended for s in samples).items())),
            "canonical": canonical.figures(),
            "tokens": sum(s.tokens for s in samples),
            "tokens_per_problem": round(sum(s.tokens for s in samples) / count, 1),
            "seconds_per_problem": round(sum(s.seconds for s in samples) / count, 2),
            "check_seconds_per_problem": round(sum(s.check_seconds for s in samples) / count, 2),
        }
        if exact:
            figures["exact_match"] = sum(exact) / len(exact)
        return figures


def _passed(samples: Sequence[Sample]) -> Counter[str]:
    """How many samples of each problem pass."""
    return Counter(s.problem for s in samples if s.status == "passed")
