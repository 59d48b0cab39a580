"""Ways, problems and a tool chain for tests of the benches."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.comparing.ways import DENSE, PEER, Served, Way

from subllm.measuring.evaluation.problems import Benchmark, Problem
from subllm.measuring.evaluation.records import ModelFacts
from subllm.measuring.evaluation.toolchains import Verdict

from .conftest import SCRIPTS

TINY = Path(__file__).with_name("tiny_worker.py")
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(SCRIPTS / "benchmarks/engines"), *sys.path]),
}
RIGHT = "    return a + b\nprint('what follows does not count')\n"
WRONG = "    return a - b\nprint('what follows does not count')\n"


def served(log: Path, text: str = RIGHT, *, peer: bool = False, **changes: Any) -> Served:
    """A way that a worker of one text serves."""
    way = Way("llama.cpp Q4_K_M" if peer else "dense int4", PEER if peer else DENSE, "int4")
    model = ModelFacts(
        name="tiny:1m-dense",
        digest=f"sha256-{'1' * 64}",
        language="dense",
        base="tiny:1m",
        base_digest=f"sha256-{'2' * 64}",
        base_source="path:tiny",
        method="none",
        pattern="dense",
        values="int4",
        head="int8",
        density=1.0,
    )
    command = (sys.executable, str(TINY), text, str(log))
    made = Served(way, model, command, ENVIRONMENT, (), 1000, 0, "", "", "version-1")
    return replace(made, **changes)


def drafting(one: Served) -> Served:
    """The same with drafts."""
    way = replace(one.way, title=f"{one.way.title}, drafts", drafts="auto")
    return replace(one, way=way, draft="tiny:1m-python", draft_digest=f"sha256-{'5' * 64}")


def benchmark(count: int) -> Benchmark:
    problems = tuple(
        Problem(
            id=f"Python/{number}",
            language="python",
            kind="function",
            prompt="def add(a, b):\n",
            head="def add(a, b):\n",
            test=f"assert add({number}, 2) == {number} + 2\n",
            canonical="    return a + b\n",
            entry="add",
        )
        for number in range(count)
    )
    return Benchmark("humaneval-x", "tiny.jsonl", f"sha256-{'3' * 64}", count, problems)


class HereAndNow:
    """Runs programs in this process: those of `benchmark` do no harm."""

    language = "python"

    def version(self) -> str:
        return "here"

    def check(self, program: str, *, wall_seconds: float) -> Verdict:
        start = time.monotonic()
        try:
            exec(compile(program, "program", "exec"), {})
        except AssertionError as error:
            return Verdict("failed", repr(error), time.monotonic() - start)
        return Verdict("passed", "", time.monotonic() - start)
