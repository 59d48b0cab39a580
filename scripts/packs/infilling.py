"""Infillings from HumanEval or HumanEval-X: of each problem's canonical solution one line, drawn
with a fixed seed, is the hole (Bavarian et al. 2022, "Efficient Training of Language Models to
Fill in the Middle", single-line benchmark; that one has every line).

    scripts/make-packs infilling [--begun | --lines] [--language java] HumanEval.jsonl.gz HOLES
    subllm eval MODEL --task infilling --data HOLES [--language java]

With --begun the cursor stands inside that line, where somebody stopped typing: the hole is the
rest. With --lines the hole is two to five lines, or as many as there are before the last one, of
each solution that has three (the same paper's multi-line benchmark has every span): nothing tells
the model where to stop.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from functools import partial
from pathlib import Path


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/make-packs infilling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--begun", action="store_true")
    kind.add_argument("--lines", action="store_true")
    parser.add_argument("--language", default="python", help="of the problems")
    given = parser.parse_args(argv)
    draw = random.Random(0)
    hole_of = _lines if given.lines else partial(_line, begun=given.begun)
    rows = []
    opened = gzip.open if given.source.suffix == ".gz" else open
    with opened(given.source, "rt") as lines:
        for problem in map(json.loads, lines):
            body = problem["canonical_solution"]
            hole = hole_of(body.splitlines(keepends=True), draw)
            if hole is None:
                continue
            name, start, end = hole
            rows.append(
                {
                    "task_id": name.format(problem["task_id"]),
                    "language": given.language,
                    "entry_point": problem.get("entry_point"),
                    "prompt": problem["prompt"] + body[:start],
                    "suffix": body[end:],
                    "canonical_solution": body[start:end],
                    "test": problem["test"],
                }
            )
    given.target.write_text("".join(json.dumps(row) + "\n" for row in rows))


Hole = tuple[str, int, int]
"""A name for the problem's, and where the hole begins and ends in its solution."""


def _line(body: list[str], draw: random.Random, *, begun: bool) -> Hole:
    at = draw.choice([number for number, line in enumerate(body) if line.strip()])
    line, before = body[at], len("".join(body[:at]))
    indent = len(line) - len(line.lstrip())
    cut = draw.randrange(indent, len(line.rstrip())) if begun else 0
    return f"SingleLineInfilling/{{}}/L{at}", before + cut, before + len(line)


def _lines(body: list[str], draw: random.Random) -> Hole | None:
    starts = [number for number, line in enumerate(body) if line.strip()]
    if len(starts) < 3:
        return None
    first = draw.choice(starts[:-1])
    last = min(first + draw.randint(2, 5), starts[-1])
    start, end = (len("".join(body[:number])) for number in (first, last))
    return f"MultiLineInfilling/{{}}/L{first}_{last}", start, end
