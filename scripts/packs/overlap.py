"""Look for text of benchmarks in the calibration packs: a shared 10-gram of words.

  scripts/make-packs overlap DATA...          files or directories of problems: HumanEval, MBPP,
                                              HumanEval-X, MultiPL-E, anything of their kind
  scripts/make-packs overlap DATA --packs DIR      other packs than those that are shipped

Problems may be .jsonl, .json, either with .gz, or .parquet. Every text of a problem is
compared (prompt, solution, tests) with every instruction and answer of both splits. Lines
that only import do not count, nor do grams with fewer than five different names.
Exits with 1 when there is an overlap, 2 when there is nothing to compare.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from subllm.errors import CalibrationError, TableError
from subllm.making.calibration.packs import DATA, ProseSample, read_pack
from subllm.making.textmaking.benchmark_files import Problem, problem_files, read_problems
from subllm.making.textmaking.known import KnownText

PACKS = "*.jsonl.xz"


@dataclass(frozen=True)
class Overlap:
    """Words that a sample of a pack shares with a problem."""

    pack: str
    sample: str
    split: str
    file: str
    problem: str
    words: str


def main(argv: list[str]) -> int:
    options = parse(argv)
    try:
        packs = sorted(options.packs.rglob(PACKS), key=lambda path: (len(path.parts), path))
        problems = [p for path in problem_files(options.data) for p in read_problems(path)]
        if not packs or not problems:
            missing = f"no packs in {options.packs}" if not packs else "no problems given"
            print(f"make-packs overlap: {missing}", file=sys.stderr)
            return 2
        found = list(find(packs, problems))
    except (CalibrationError, TableError, FileNotFoundError) as error:
        print(f"make-packs overlap: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps([asdict(overlap) for overlap in found], indent=2))
    else:
        show(packs, problems, found)
    return 1 if found else 0


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/make-packs overlap",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("data", nargs="+", type=Path, help="files or directories of benchmark problems")
    add("--packs", type=Path, default=DATA, help="directory of packs (default: those shipped)")
    add("--json", action="store_true", help="print what was found as one JSON document")
    return parser.parse_args(argv)


def find(packs: Iterable[Path], problems: Iterable[Problem]) -> Iterator[Overlap]:
    """Every sample with every problem that it overlaps, and of the words that they share the
    first ten by the alphabet."""
    problems = list(problems)
    everything = KnownText(text for problem in problems for text in problem.texts)
    apart: list[tuple[Problem, KnownText]] = []
    for path in packs:
        pack = read_pack(path)
        for sample in pack.samples:
            answer = sample.text if isinstance(sample, ProseSample) else sample.code
            texts = (sample.instruction, answer)
            if not any(everything.shared(text) for text in texts):
                continue
            # Which problem it was is asked only where there is one: that takes a while.
            apart = apart or [(problem, KnownText(problem.texts)) for problem in problems]
            for problem, one in apart:
                words = sorted(gram for text in texts for gram in one.shared(text))
                if words:
                    yield Overlap(
                        pack.header.pack, sample.id, sample.split,
                        problem.file, problem.id, " ".join(words[0]),
                    )  # fmt: skip


def show(packs: list[Path], problems: list[Problem], found: list[Overlap]) -> None:
    for overlap in found:
        print(
            f"{overlap.pack} {overlap.sample} ({overlap.split}) and "
            f"{overlap.file} {overlap.problem}: {overlap.words}"
        )
    files = ", ".join(sorted({problem.file for problem in problems}))
    samples = sum(len(read_pack(path).samples) for path in packs)
    names = ", ".join(read_pack(path).header.pack for path in packs)
    print(f"{len(problems)} problems of {files}\n{samples} samples of {names}")
    print(f"{len({(o.pack, o.sample) for o in found})} samples overlap")
