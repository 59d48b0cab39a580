"""The data's own solutions, run before anyone else's is judged.

Where one fails, tool chain, data and harness disagree, and no model can pass that problem.
It stays in the count, and the result says which it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subllm.errors import EvaluationError
from subllm.measuring.evaluation.problems import Problem
from subllm.measuring.evaluation.records import Canonical
from subllm.measuring.evaluation.toolchains import Verdict
from subllm.models.store.files import disk_errors
from subllm.models.store.manifest import canonical_json, sha256_of
from subllm.progress import Progress, bar

CACHE = "canonical.jsonl"


@dataclass(frozen=True)
class CanonicalResult:
    """verdicts of the problems that have a solution, in their order; `without`: the others."""

    verdicts: tuple[Canonical, ...]
    without: tuple[str, ...]

    @property
    def failing(self) -> tuple[str, ...]:
        return tuple(line.problem for line in self.verdicts if line.status != "passed")

    def figures(self) -> dict[str, Any]:
        """For a summary."""
        return {
            "run": len(self.verdicts),
            "passed": len(self.verdicts) - len(self.failing),
            "failing": list(self.failing),
            "without": list(self.without),
        }


def check_canonical(
    problems: Sequence[Problem],
    check: Callable[[str], Verdict],
    pool: Executor,
    directory: Path,
    tool: str,
    progress: Progress,
) -> CanonicalResult:
    """Verdicts from the cache in `directory`, where the same program was run with the same
    `tool` (name and version), or else from `check` in `pool`.

    Raises EvaluationError when none passes: then nothing that follows would mean anything.
    """
    cache = _Cache(directory / CACHE, tool)
    programs = {p.id: p.program(p.canonical) for p in problems if p.canonical is not None}
    verdicts = {identity: cache.get(program) for identity, program in programs.items()}
    missing = [identity for identity, verdict in verdicts.items() if verdict is None]
    if missing:
        with bar(progress, "canonical", "canonical solutions", len(missing), "items"):
            futures = {pool.submit(check, programs[one]): one for one in missing}
            for future in as_completed(futures):
                one = futures[future]
                verdicts[one] = future.result()
                cache.put(programs[one], future.result())
                progress.advance("canonical")
    lines = tuple(
        Canonical(problem=one, status=v.status, detail=v.detail, seconds=round(v.seconds, 3))
        for one, v in verdicts.items()
        if v is not None
    )
    result = CanonicalResult(lines, tuple(p.id for p in problems if p.canonical is None))
    if lines and len(result.failing) == len(lines):
        raise EvaluationError(
            f"none of the {len(lines)} canonical solutions passes with {tool} "
            f"({lines[0].problem}: {lines[0].status}, {lines[0].detail.strip()[:200]!r}); "
            "correct the data or the tool chain"
        )
    return result


class _Cache:
    """Verdicts by program, kept beside the records."""

    def __init__(self, path: Path, tool: str) -> None:
        self._path = path
        self._tool = tool
        self._known: dict[str, Verdict] = {}
        with disk_errors(path):
            lines = path.read_bytes().splitlines() if path.exists() else []
        for line in lines:
            try:
                row = json.loads(line)
                if row["tool"] == tool:
                    verdict = Verdict(row["status"], row["detail"], row["seconds"])
                    self._known[row["program"]] = verdict
            except (ValueError, KeyError, TypeError):
                continue  # cut short; it is run again

    def get(self, program: str) -> Verdict | None:
        return self._known.get(sha256_of(program.encode()))

    def put(self, program: str, verdict: Verdict) -> None:
        row = {
            "tool": self._tool,
            "program": sha256_of(program.encode()),
            "status": verdict.status,
            "detail": verdict.detail,
            "seconds": verdict.seconds,
        }
        with disk_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(canonical_json(row) + b"\n")
