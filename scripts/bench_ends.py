"""How often a hole's filling would be cut before its end, as it holds what follows the hole.

    scripts/bench ends [--holes 3000] 'PATTERN' ['PATTERN' ...]

Of files below a directory (all `*.py` of '/usr/lib/python3/*.py') one to eight lines are taken
out, and given to `HoleEnd` as what was written into the hole.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from subllm.text.hole_end import TELLING, Hole, HoleEnd


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench ends",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("patterns", nargs="+", metavar="PATTERN")
    parser.add_argument("--holes", type=int, default=3000)
    given = parser.parse_args()
    draw = random.Random(0)
    for pattern in given.patterns:
        place, _, name = pattern.rpartition("/")
        files = sorted(path for path in Path(place).rglob(name) if path.is_file())
        found = [cut_short(draw.choice(files), draw) for _ in range(given.holes if files else 0)]
        holes = [cut for cut in found if cut is not None]
        share = f"{sum(holes) / len(holes):.2%}" if holes else "none"
        print(f"{pattern}: {len(holes)} holes, {share} cut, at {TELLING} letters and digits")


def cut_short(path: Path, draw: random.Random) -> bool | None:
    """None for a file that has no place for a hole."""
    lines = path.read_text(errors="replace").splitlines(keepends=True)
    if len(lines) < 20:
        return None
    first = draw.randrange(1, len(lines) - 10)
    last = first + draw.randint(1, 8)
    before, hole, after = (
        "".join(part) for part in (lines[:first], lines[first:last], lines[last:])
    )
    if not hole.strip() or not after.strip():
        return None
    end = HoleEnd(Hole.between(before, after))
    return end.push(hole)[1] or end.finish()[1]


if __name__ == "__main__":
    main()
