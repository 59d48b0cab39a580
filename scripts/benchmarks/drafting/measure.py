"""Rounds of plain decoding and drafting in turns, on one worker of each model."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.engines.worker import Worker, WorkerError

from .workloads import Workload

NEVER_SLOWER = 0.97
"""The least that speculation may reach of plain decoding, on any workload."""


@dataclass
class Compared:
    """Rates of one workload on one model in tokens per second, by round; `failed` says why there
    are none. different: texts that were not those of plain decoding."""

    workload: str
    model: str
    drafts: str
    plain: list[float] = field(default_factory=list)
    drafted: list[float] = field(default_factory=list)
    tokens: int = 0
    steps: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    different: int = 0
    failed: str = ""

    @property
    def times(self) -> float | None:
        """Median of what drafting made of plain decoding's rate, round by round."""
        pairs = list(zip(self.plain, self.drafted, strict=True))
        return statistics.median(b / a for a, b in pairs) if pairs else None


def compare(
    worker: Worker, workload: Workload, model: str, drafts: str, say: Callable[[str], None]
) -> Compared:
    """Every round without and with `drafts`, every other round with them first."""
    found = Compared(workload.title, model, drafts)
    for number, asks in enumerate(workload.rounds):
        answers: dict[str, list[dict[str, Any]]] = {}
        rates: dict[str, float] = {}
        try:
            for mode in ("", drafts) if number % 2 == 0 else (drafts, ""):
                worker.measure("forget")
                answers[mode], rates[mode] = _run(worker, workload, asks, mode, found)
        except WorkerError as error:
            found.failed = str(error)
            return found
        found.plain.append(rates[""])
        found.drafted.append(rates[drafts])
        plain = {one["id"]: one["ids"] for one in answers[""]}
        found.different += sum(one["ids"] != plain[one["id"]] for one in answers[drafts])
        found.tokens += sum(one["decoded"] for one in answers[drafts])
        found.steps += sum(one["steps"] for one in answers[drafts])
        say(f"{model}, {workload.title}: round {number + 1} of {len(workload.rounds)}")
    return found


def _run(
    worker: Worker, workload: Workload, asks: list[dict[str, Any]], drafts: str, found: Compared
) -> tuple[list[dict[str, Any]], float]:
    start = time.perf_counter()
    parts = list(worker.parts("complete", asks=asks, together=workload.together, drafts=drafts))
    seconds = time.perf_counter() - start
    answers = [part for part in parts if "id" in part]
    for part in parts:
        for name, count in part.get("drafts", {}).items():
            found.counts[name] = found.counts.get(name, 0) + count
    if workload.whole:
        return answers, sum(len(one["ids"]) for one in answers) / seconds
    decoded = sum(one["decoded"] for one in answers)
    return answers, decoded / sum(one["decode_seconds"] for one in answers)


def table(rows: Sequence[Compared]) -> str:
    """Lines for a person; a star where drafting costs more than it may."""
    lines = [
        f"{'':40}{'model':>12}{'drafts':>8}{'plain':>8}{'drafted':>9}{'times':>7}{'tok/step':>10}"
        f"{'accepted':>10}"
    ]
    for row in rows:
        line = f"{row.workload:40}{row.model:>12}{row.drafts:>8}"
        if row.failed or row.times is None:
            lines.append(f"{line}  not measured, {row.failed}")
            continue
        plain, drafted = statistics.median(row.plain), statistics.median(row.drafted)
        drafts = sum(count for name, count in row.counts.items() if name.endswith("drafted"))
        kept = sum(count for name, count in row.counts.items() if name.endswith("accepted"))
        share = f"{kept / drafts:.0%}" if drafts else "-"
        step = f"{row.tokens / row.steps:.2f}" if row.steps else "-"
        star = "*" if row.times < NEVER_SLOWER else " "
        lines.append(f"{line}{plain:8.1f}{drafted:9.1f}{row.times:6.2f}{star}{step:>10}{share:>10}")
    slower = [row for row in rows if row.times is not None and row.times < NEVER_SLOWER]
    if slower:
        lines.append(f"* slower than {NEVER_SLOWER} times plain decoding")
    different = sum(row.different for row in rows)
    lines.append(
        f"{different} texts differ from plain decoding's" if different else "all texts are those "
        "of plain decoding"
    )  # fmt: skip
    return "\n".join(lines)


def document(row: Compared) -> dict[str, Any]:
    return {
        "workload": row.workload,
        "model": row.model,
        "drafts": row.drafts,
        "plain": row.plain,
        "drafted": row.drafted,
        "times": row.times,
        "tokens_per_step": row.tokens / row.steps if row.steps else None,
        "counts": row.counts,
        "different_texts": row.different,
        "failed": row.failed or None,
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
