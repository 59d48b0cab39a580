"""How often a hole's filling would be cut before its end: where it holds what follows the hole, or
a line outside of the hole's block.

    scripts/bench ends [--holes 3000] 'PATTERN' ['PATTERN' ...]
    scripts/bench ends --git REPOSITORY '*.py' ['*.cpp' ...]

Of files below a directory (all `*.py` of '/usr/lib/python3/*.py') one to eight lines are taken
out, and given to `HoleEnd` as what was written into the hole. With --git, all insertions of up to
eight lines, beside which nothing was deleted, in the last 400 commits: what was written at a
cursor, where holes of the first kind are often such as nobody leaves.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from subllm.models.text.block_end import BlockEnd
from subllm.models.text.hole_end import TELLING, Hole, HoleEnd

LINES = 8
Parts = tuple[str, str, str]
"""Before the hole, what was in it, after it."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench ends",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("patterns", nargs="+", metavar="PATTERN")
    parser.add_argument("--holes", type=int, default=3000)
    parser.add_argument("--git", type=Path, metavar="REPOSITORY")
    given = parser.parse_args()
    for pattern in given.patterns:
        if given.git:
            holes = list(inserted(given.git, pattern))
        else:
            holes = list(taken_out(pattern, given.holes))
        said, left = (sum(map(cut, holes)) for cut in (said_again, left_block))
        shares = [f"{part / max(len(holes), 1):.2%}" for part in (said, left)]
        print(
            f"{pattern}: {len(holes)} holes; cut at {TELLING} letters and digits of what follows: "
            f"{shares[0]}, outside of the block: {shares[1]}"
        )


def taken_out(pattern: str, count: int) -> Iterator[Parts]:
    """Of files that have a place for a hole."""
    draw = random.Random(0)
    place, _, name = pattern.rpartition("/")
    files = sorted(path for path in Path(place).rglob(name) if path.is_file())
    for _ in range(count if files else 0):
        lines = draw.choice(files).read_text(errors="replace").splitlines(keepends=True)
        if len(lines) < 20:
            continue
        first = draw.randrange(1, len(lines) - 10)
        last = first + draw.randint(1, LINES)
        parts = ("".join(part) for part in (lines[:first], lines[first:last], lines[last:]))
        before, hole, after = parts
        if hole.strip() and after.strip():
            yield before, hole, after


def inserted(repository: Path, pattern: str) -> Iterator[Parts]:
    """As git shows them, with 40 lines around each."""
    options = ("--format=", "--no-color", "--diff-filter=M", "-U40", "-400")
    command = ["git", "-C", str(repository), "log", "-p", *options, "--", pattern]
    shown = subprocess.run(command, capture_output=True, check=True).stdout.decode(errors="replace")
    for change in re.split(r"^diff --git .*$", shown, flags=re.M):
        for hunk in re.split(r"^@@.*$", change, flags=re.M)[1:]:
            lines = hunk.split("\n")[1:]
            yield from _insertions([line for line in lines if line.startswith(("+", "-", " "))])


def _insertions(lines: list[str]) -> Iterator[Parts]:
    runs = [(kind, list(run)) for kind, run in groupby(lines, key=lambda line: line[:1])]
    for at in range(1, len(runs) - 1):
        kinds = "".join(kind for kind, _ in runs[at - 1 : at + 2])
        if kinds != " + " or len(runs[at][1]) > LINES:
            continue
        before, hole, after = (
            "".join(line[1:] + "\n" for kind, run in part if kind != "-" for line in run)
            for part in (runs[:at], runs[at : at + 1], runs[at + 1 :])
        )
        if hole.strip() and after.strip():
            yield before, hole, after


def said_again(parts: Parts) -> bool:
    _, hole, after = parts
    end = HoleEnd(Hole("", after))  # nothing above: no block
    return end.push(hole)[1] or end.finish()[1]


def left_block(parts: Parts) -> bool:
    before, hole, after = parts
    around = Hole.between(before, after)
    end = BlockEnd(around.line, around.above, next(filter(str.strip, after.split("\n"))))
    return end.push(hole)[1] or end.finish()[1]


if __name__ == "__main__":
    main()
