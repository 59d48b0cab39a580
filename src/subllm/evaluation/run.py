"""One measurement of pass@k: a model, a benchmark, a language, one records file.

Programs are compiled and run while the next completions are still being written.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from subllm.errors import UsageError
from subllm.evaluation.canonical import CanonicalResult, check_canonical
from subllm.evaluation.engines import OpenEngine
from subllm.evaluation.facts import machine_facts, model_facts, now
from subllm.evaluation.generate import generate
from subllm.evaluation.judge import Judge
from subllm.evaluation.pass_at_k import pass_at_k
from subllm.evaluation.problems import Benchmark
from subllm.evaluation.prompts import Asked, Prompter, choose_form
from subllm.evaluation.records import (
    HARNESS,
    Canonical,
    DataFacts,
    RecordFile,
    Result,
    RunHeader,
    Sample,
    Sampling,
    Summary,
)
from subllm.evaluation.toolchains import Toolchain, Verdict
from subllm.machine import usable_cores
from subllm.progress import Progress
from subllm.store.store import Store
from subllm.store.tokenizers import open_tokenizer

WALL_SECONDS = {"python": 10.0, "javascript": 10.0, "cpp": 10.0, "java": 15.0}
"""For running one program, generous because others run beside it."""


@dataclass(frozen=True)
class Plan:
    """task         what the benchmark is called
    samples      completions per problem
    ks           each at most `samples`
    seed         decides what is sampled, and the intervals
    together     completions that are written at once
    tools        what decides results beside the tool chain, e.g. the engine's backend
    threads      of the engine, for the record; None for all cores
    """

    task: str
    benchmark: Benchmark
    samples: int = 1
    ks: tuple[int, ...] = (1,)
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    seed: int = 0
    form: Asked = "raw"
    together: int = 24
    tools: tuple[tuple[str, str], ...] = ()
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.samples < 1 or not self.ks:
            raise UsageError("--samples and --k must name at least one sample")
        if max(self.ks) > self.samples or min(self.ks) < 1:
            raise UsageError(
                f"pass@{max(self.ks)} needs at least {max(self.ks)} samples; raise --samples"
            )
        if self.samples > 1 and self.temperature == 0:
            raise UsageError(
                "greedy completions of a problem are all the same; give --temperature, or "
                "--samples 1"
            )


def evaluate(
    store: Store,
    model: str,
    plan: Plan,
    tool: Toolchain,
    open_engine: OpenEngine,
    directory: Path,
    progress: Progress,
) -> Result:
    """Goes on where an earlier run of the same plan was; a complete one is only counted.

    The records of plans that differ only in `samples`, `ks` or in how many of the problems
    are asked share a file. Raises UsageError for what the model cannot be asked,
    EvaluationError when no canonical solution passes, LockedError while another process
    does the same, and what the engine raises.
    """
    benchmark = plan.benchmark
    manifest = store.model(model)
    tokenizer = open_tokenizer(store, manifest)
    form = choose_form(plan.form, benchmark.problems[0], tokenizer)
    prompter = Prompter(tokenizer, manifest.prompt, form)
    version = f"{tool.language} {tool.version()}"
    sampling = Sampling(
        temperature=plan.temperature,
        top_p=plan.top_p,
        max_tokens=plan.max_tokens,
        seed=plan.seed,
    )
    header = RunHeader(
        task=plan.task,
        language=tool.language,
        model=model_facts(store, model),
        data=DataFacts(
            source=benchmark.source,
            form=benchmark.form,
            digest=benchmark.digest,
            rows=benchmark.rows,
        ),
        prompt=form,
        sampling=sampling,
        harness=HARNESS,
        tools={**dict(plan.tools), "toolchain": version},
        machine=machine_facts(plan.threads),
        created=now(),
    )
    seconds = WALL_SECONDS[tool.language]

    def check(program: str) -> Verdict:
        return tool.check(program, wall_seconds=seconds)

    # Not a context manager: leaving one waits for programs that hang, whom the sandbox's
    # owner is about to end.
    pool = ThreadPoolExecutor(usable_cores(), "check")
    try:
        with RecordFile(directory, header) as records:
            began = time.monotonic()
            canonical = check_canonical(
                benchmark.problems, check, pool, directory, version, progress
            )
            known = {line.problem for line in records.of(Canonical)}
            for line in canonical.verdicts:
                if line.problem not in known:
                    records.append(line)
            checked = time.monotonic()
            judge = Judge(records, benchmark.problems, form, check, pool)
            asks = judge.asks(prompter, sampling, plan.samples)
            total = len(benchmark.problems) * plan.samples
            if len(asks) < total:
                progress.note(f"{total - len(asks)} of {total} samples are there already")
            if asks:
                longest = max(len(ask.prompt) for ask in asks) + plan.max_tokens
                engine = open_engine(model, plan.together, longest)
                judge.run(generate(engine, asks, plan.together), len(asks), progress)
            spent = {
                "canonical": round(checked - began, 2),
                "samples": round(time.monotonic() - checked, 2),
            }
            figures = _conclude(records, summarize(records, plan, canonical), spent, len(asks))
            return Result(header, figures, records.path, len(asks))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _conclude(
    records: RecordFile, figures: dict[str, Any], spent: dict[str, float], new: int
) -> dict[str, Any]:
    """The summary of a run; that of an earlier one where nothing was added since."""
    if not new:
        for summary in reversed(list(records.of(Summary))):
            if figures.items() <= summary.figures.items():
                return summary.figures
    figures = {**figures, "new_samples": new, "wall_seconds": spent}
    records.append(Summary(run=records.key, figures=figures))
    return figures


def summarize(records: RecordFile, plan: Plan, canonical: CanonicalResult) -> dict[str, Any]:
    """Figures over the plan's problems and samples; the file may hold more."""
    wanted = {(p.id, i) for p in plan.benchmark.problems for i in range(plan.samples)}
    samples = [s for s in records.of(Sample) if (s.problem, s.index) in wanted]
    passed = Counter(s.problem for s in samples if s.status == "passed")
    counts = [(plan.samples, passed[p.id]) for p in plan.benchmark.problems]
    exact = [s.exact for s in samples if s.exact is not None]
    figures: dict[str, Any] = {
        "problems": len(counts),
        "samples_per_problem": plan.samples,
        "pass": [asdict(pass_at_k(counts, k, plan.seed)) for k in plan.ks],
        "status": dict(sorted(Counter(s.status for s in samples).items())),
        "ended": dict(sorted(Counter(s.ended for s in samples).items())),
        "canonical": canonical.figures(),
        "tokens": sum(s.tokens for s in samples),
        "tokens_per_problem": round(sum(s.tokens for s in samples) / len(counts), 1),
        "seconds_per_problem": round(sum(s.seconds for s in samples) / len(counts), 2),
        "check_seconds_per_problem": round(sum(s.check_seconds for s in samples) / len(counts), 2),
    }
    if exact:
        figures["exact_match"] = sum(exact) / len(exact)
    return figures
