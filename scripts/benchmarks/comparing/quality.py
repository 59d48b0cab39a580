"""Greedy pass@1 of a way: a worker writes, the evaluation's judge runs what it wrote.

Records are those of `subllm eval`, one file for each way; what is there is not written again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.engines.worker import Worker

from subllm.machine import usable_cores
from subllm.measuring.evaluation.canonical import check_canonical
from subllm.measuring.evaluation.facts import machine_facts, now
from subllm.measuring.evaluation.generate import Answer, Ask
from subllm.measuring.evaluation.intervals import pass_at_k
from subllm.measuring.evaluation.judge import Judge
from subllm.measuring.evaluation.measures.pass_at_k import WALL_SECONDS
from subllm.measuring.evaluation.problems import Benchmark
from subllm.measuring.evaluation.prompts import Prompter
from subllm.measuring.evaluation.record_file import RecordFile, read_records
from subllm.measuring.evaluation.records import HARNESS, DataFacts, RunHeader, Sample, Sampling
from subllm.measuring.evaluation.toolchains import Toolchain, Verdict
from subllm.progress import Progress

from .problems import MAX_TOKENS
from .ways import PEER, Served

SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=MAX_TOKENS, seed=0)
ALTOGETHER = 16
"""Completions written at once, where a way writes several."""


@dataclass(frozen=True)
class Quality:
    """passed: problem -> whether its program passes; kept: problem -> the text that counts.

    version  of the engine that wrote them
    """

    value: float
    low: float
    high: float
    passed: dict[str, bool]
    kept: dict[str, str]
    version: str
    tokens: int


def together(served: Served) -> int:
    """Speculation is for one sequence; whoever drafts writes one text at a time."""
    return 1 if served.way.drafts else ALTOGETHER


def header(served: Served, data: Benchmark, toolchain: str) -> RunHeader:
    """What names a way's records. llama.cpp's texts depend on how many are written at once;
    ours do not."""
    tools = {"engine": served.version, "toolchain": toolchain}
    if served.way.drafts:
        tools["drafts"] = f"{served.way.drafts} {served.draft_digest}".strip()
    if served.way.family == PEER:
        tools["together"] = str(together(served))
    return RunHeader(
        task="humaneval-x",
        language="python",
        model=served.model,
        data=DataFacts(source=data.source, form=data.form, digest=data.digest, rows=data.rows),
        prompt="raw",
        sampling=SAMPLING,
        harness=HARNESS,
        tools=tools,
        machine=machine_facts(None),
        created=now(),
    )


def recorded(directory: Path, wanted: RunHeader, data: Benchmark, *, any_engine: bool) -> (
    Quality | None
):  # fmt: skip
    """What records say of all problems of `data`; None where they do not have them all.

    any_engine  whether records of another version of the engine will do, where there are none
                of this one; the newest then counts
    """
    found: list[tuple[bool, str, Quality]] = []
    for path in directory.glob("*.jsonl"):
        if path.name == "canonical.jsonl":
            continue
        have, lines = read_records(path)
        same = have.key == wanted.key
        if not same and not (any_engine and _but_engine(have) == _but_engine(wanted)):
            continue
        samples = [line for line in lines if isinstance(line, Sample)]
        quality = _quality(samples, data, have.tools.get("engine", ""))
        if quality is not None:
            found.append((same, have.created, quality))
    return max(found, key=lambda one: one[:2])[2] if found else None


def _but_engine(one: RunHeader) -> dict[str, Any]:
    known = one.model_dump(mode="json", exclude={"machine", "created"})
    known["tools"] = {name: value for name, value in one.tools.items() if name != "engine"}
    return known


def _quality(samples: Iterable[Sample], data: Benchmark, version: str) -> Quality | None:
    by_problem = {sample.problem: sample for sample in samples}
    asked = [problem.id for problem in data.problems]
    if any(problem not in by_problem for problem in asked):
        return None
    passed = {problem: by_problem[problem].status == "passed" for problem in asked}
    kept = {problem: by_problem[problem].raw[: by_problem[problem].kept] for problem in asked}
    share = pass_at_k([(1, int(ok)) for ok in passed.values()], 1, 0)
    tokens = sum(by_problem[problem].tokens for problem in asked)
    return Quality(share.value, share.low, share.high, passed, kept, version, tokens)


def measure(
    served: Served,
    data: Benchmark,
    prompter: Prompter,
    tool: Toolchain,
    directory: Path,
    threads: int,
    progress: Progress,
) -> Quality:
    """Completions that the records do not have yet, and their verdicts. Raises WorkerError,
    LockedError, EvaluationError when no canonical solution passes."""
    version = f"{tool.language} {tool.version()}"

    def check(program: str) -> Verdict:
        return tool.check(program, wall_seconds=WALL_SECONDS["python"])

    # Not a context manager: leaving one waits for programs that hang, whom the sandbox's
    # owner is about to end.
    pool = ThreadPoolExecutor(usable_cores(), "check")
    try:
        with RecordFile(directory, header(served, data, version)) as records:
            check_canonical(data.problems, check, pool, directory, version, progress)
            judge = Judge(records, data.problems, "raw", check, pool)
            asks = judge.asks(prompter, SAMPLING, 1)
            if asks:
                longest = max(len(ask.prompt) for ask in asks) + MAX_TOKENS
                command = served.sizes(threads, longest, together(served))
                worker = Worker(served.way.title, command, served.environment)
                try:
                    answers = write(worker, served, asks, data)
                    judge.run(answers, len(asks), progress)
                finally:
                    worker.close()
            quality = _quality(records.of(Sample), data, served.version)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    assert quality is not None
    return quality


def write(
    worker: Worker, served: Served, asks: list[Ask], data: Benchmark
) -> Iterator[Answer]:  # fmt: skip
    """What a worker answers to `asks`, as answers of the evaluation."""
    heads = {problem.id: problem.head for problem in data.problems}
    wanted = [
        {
            "id": ask.id,
            "prompt": ask.prompt,
            "max_tokens": ask.params.max_tokens,
            "head": heads[ask.id.partition(":")[2]],
        }
        for ask in asks
    ]
    parts = worker.parts(
        "complete", asks=wanted, together=together(served), drafts=served.way.drafts
    )
    for part in parts:
        if "id" in part:
            ids = tuple(part["ids"])
            text = part["raw"][: part["kept"]]
            yield Answer(
                part["id"], part["raw"], text, part["ended"], len(ids), ids, part["seconds"]
            )
