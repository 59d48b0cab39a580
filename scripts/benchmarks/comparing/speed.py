"""Decoding speed of many ways, in rounds: each asks every way for the same completions, one
way after the other, every round beginning with another.

Samples lie in a file for each way and are kept when the process ends: the next run measures
what is missing.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.engines.worker import Worker, WorkerError

from subllm.files import write_whole
from subllm.machine import cpu_name
from subllm.measuring.evaluation.facts import now
from subllm.models.store.manifest import canonical_json, sha256_of

from .problems import Plan
from .ways import Served, known


@dataclass
class Speeds:
    """Samples of one way by round; each says how many tokens took how long, in how many steps,
    and the texts. `failed` says why it was left."""

    key: str
    path: Path
    rounds: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    failed: str = ""

    @property
    def samples(self) -> list[dict[str, Any]]:
        return [self.rounds[number] for number in sorted(self.rounds, key=int)]

    @property
    def rate(self) -> float | None:
        """Median of the rounds, decoded tokens per second."""
        rates = [one["decoded"] / one["seconds"] for one in self.samples]
        return statistics.median(rates) if rates else None

    @property
    def tokens_per_step(self) -> float | None:
        steps = sum(one["steps"] for one in self.samples)
        return sum(one["decoded"] for one in self.samples) / steps if steps else None

    @property
    def texts(self) -> dict[str, str]:
        """Problem -> the text that counts."""
        return {name: text for one in self.samples for name, text in one["texts"].items()}

    def save(self) -> None:
        document = {"key": self.key, "facts": self.facts, "rounds": self.rounds}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, json.dumps(document, indent=1).encode() + b"\n")


def speed_key(served: Served, plan: Plan, threads: int, machine: str) -> str:
    """16 hex digits that name what is measured: model, draft, version of the engine, prompts,
    machine and threads."""
    wanted = {
        **known(served),
        "rounds": [plan.digest(number) for number in range(len(plan.rounds))],
        "threads": threads,
        "machine": machine,
    }
    return sha256_of(canonical_json(wanted)).removeprefix("sha256-")[:16]


def recorded(served: Served, plan: Plan, threads: int, directory: Path) -> Speeds:
    """What is known already; nothing where nothing is. A damaged file counts as nothing."""
    key = speed_key(served, plan, threads, cpu_name())
    name = "".join(c if c.isalnum() or c in ".-" else "-" for c in served.way.title)
    speeds = Speeds(key, directory / f"{name}-{key}.json")
    try:
        document = json.loads(speeds.path.read_text())
        if document["key"] == key:
            speeds.rounds, speeds.facts = document["rounds"], document["facts"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return speeds


def measure(
    served: Sequence[Served],
    speeds: Sequence[Speeds],
    plan: Plan,
    threads: int,
    say: Callable[[str, Served | None], None],
    between: Callable[[], None],
) -> None:
    """Fills `speeds` round by round; a way that fails is left out of the rest.

    say      called with what was just done, and by whom
    between  called after each round
    """
    missing = [
        (one, had)
        for one, had in zip(served, speeds, strict=True)
        if any(str(number) not in had.rounds for number in range(len(plan.rounds)))
    ]
    with ExitStack() as stack:
        workers = _workers(missing, plan, threads, stack)
        for number, asks in enumerate(plan.rounds):
            first = number % len(missing) if missing else 0
            for one, had in missing[first:] + missing[:first]:
                if had.failed or str(number) in had.rounds:
                    continue
                command = _command(one, plan, threads)
                try:
                    had.rounds[str(number)] = sample(workers[command], one, asks)
                except WorkerError as error:
                    had.failed = str(error)
                    say(f"failed: {error}", one)
                    continue
                had.save()
                say(f"round {number + 1} of {len(plan.rounds)}", one)
            between()


def _command(served: Served, plan: Plan, threads: int) -> tuple[str, ...]:
    return tuple(served.sizes(threads, plan.longest, 1))


def _workers(
    missing: Sequence[tuple[Served, Speeds]], plan: Plan, threads: int, stack: ExitStack
) -> dict[tuple[str, ...], Worker]:
    """One for all ways that have the same model, warm."""
    workers: dict[tuple[str, ...], Worker] = {}
    broken: dict[tuple[str, ...], str] = {}
    for one, had in missing:
        command = _command(one, plan, threads)
        if command not in workers and command not in broken:
            try:
                worker = Worker(one.way.title, list(command), one.environment)
                stack.callback(worker.close)
                short = [{**ask, "max_tokens": 8} for ask in plan.rounds[0][:1]]
                list(worker.parts("complete", asks=short))
                workers[command] = worker
            except WorkerError as error:
                broken[command] = str(error)
        if command in broken:
            had.failed = broken[command]
        else:
            had.facts = workers[command].facts
    return workers


def sample(worker: Worker, served: Served, asks: list[dict[str, Any]]) -> dict[str, Any]:
    """One round of one way. Raises WorkerError."""
    parts = list(worker.parts("complete", asks=asks, drafts=served.way.drafts))
    answers = [part for part in parts if "id" in part]
    drafts = [part["drafts"] for part in parts if "drafts" in part]
    return {
        "at": now(),
        "load": os.getloadavg()[0],
        "decoded": sum(one["decoded"] for one in answers),
        "seconds": sum(one["decode_seconds"] for one in answers),
        "steps": sum(one["steps"] for one in answers),
        "drafts": drafts[0] if drafts else {},
        "texts": {one["id"]: one["raw"][: one["kept"]] for one in answers},
    }
