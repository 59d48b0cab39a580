"""How often the router finds the language of real code, and how long it takes.

  scripts/bench routing [--part tune|test] [--rows 100] [--wrong] [--json FILE]

Files of released packages (scripts/detector/projects.yaml; fetched on the first run) are cut at
random into whole files, prompts around a cursor (fim: 200 to 4,000 characters before it; editor:
the 256 lines before and 64 after that llama.vim sends), fragments of 5 to 30 lines and questions;
see routed/cases.py. Rules and thresholds are chosen on `tune` with a detector trained on `train`
alone; the one that ships has learned from both. `test` is for figures, --wrong does not show its
rows. Of pieces that show code, not comment alone, figures stand below the first; those of C and
TypeScript are part of C++'s and JavaScript's, whose sub-models they go to. Times are CPU time of
`Router.route` on one thread, the lesser of two calls.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from benchmarks.routed.cases import ROWS, Row, dialect, rows
from benchmarks.routed.comments import shows_code
from detector.corpus import files

from subllm.languages import DENSE, LANGUAGES
from subllm.serving.routing.content import window
from subllm.serving.routing.router import Query, Route, Router, SubModel
from subllm.serving.routing.sessions import Sessions

BASE = "base:1b"
MODELS = [SubModel(f"{BASE}-{name}", BASE, name) for name in (*LANGUAGES, DENSE)]


def main() -> None:
    options = parse()
    router = Router(lambda: MODELS, Sessions(lambda: 0.0), default_base=BASE)
    router.route(Query(prompt="def f(x):\n"))  # what is loaded once
    figures: dict[str, Any] = {}
    right: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    taken: dict[str, list[float]] = defaultdict(list)
    confused: Counter[tuple[str, str, str]] = Counter()
    coded: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    dialects: dict[str, list[bool]] = defaultdict(list)
    for row in rows(files(options.part), options.part, options.rows):
        route, seconds = timed(router, row)
        answered = route.model.rpartition("-")[2]
        good = answered == (row.expected or DENSE)
        group = row.written if row.written in LANGUAGES else "others"
        right[row.kind][group].append(good)
        taken[row.kind].append(seconds)
        if row.kind != "chat":
            dialects[dialect(row)].append(good)
            if shows_code(window(row.query.prompt, row.query.suffix), row.written):
                coded[row.kind][group].append(good)
        if not good:
            found = route.language or "nothing"
            confused[row.kind, row.expected or row.written, f"{found} ({route.reason})"] += 1
            if options.wrong and options.part != "test":
                show(row, route)
    print(f"{options.part}, {options.rows} rows a cell, % right")
    print(f"{'':10}{'all':>7}" + "".join(f"{name:>12}" for name in (*LANGUAGES, "others")), end="")
    print(f"{'median ms':>12}{'worst ms':>10}")
    for kind, cells in right.items():
        every = [good for cell in cells.values() for good in cell]
        shares = [100 * statistics.mean(cells[name]) for name in (*LANGUAGES, "others")]
        middle, worst = (1000 * f(taken[kind]) for f in (statistics.median, max))
        print(f"{kind:10}{100 * statistics.mean(every):7.1f}", end="")
        print("".join(f"{share:12.1f}" for share in shares) + f"{middle:12.2f}{worst:10.2f}")
        figures[kind] = {
            "right": statistics.mean(every),
            "median_ms": middle,
            "worst_ms": worst,
            **dict(zip((*LANGUAGES, "others"), shares, strict=True)),
        }
    print("of pieces that show code:")
    for kind, cells in coded.items():
        shares = [100 * statistics.mean(cells[name]) for name in (*LANGUAGES, "others")]
        among = sum(map(len, cells.values())) / len(taken[kind])
        print(f"{kind:10}{statistics.mean(shares):7.1f}", end="")
        print("".join(f"{share:12.1f}" for share in shares) + f"   {100 * among:.0f} % of them")
        figures[kind]["with_code"] = statistics.mean(shares) / 100
    for name in ("c", "typescript"):
        if pieces := dialects[name]:
            print(f"{name}: {100 * statistics.mean(pieces):.1f} of {len(pieces)} pieces")
    for (kind, written, found), times in confused.most_common(25):
        print(f"  {times:3} {kind}: {written} -> {found}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench routing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--part", choices=["tune", "test"], default="test")
    parser.add_argument("--rows", type=int, default=ROWS, help="of each language and kind")
    parser.add_argument("--wrong", action="store_true", help="show what was got wrong (tune only)")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def timed(router: Router, row: Row) -> tuple[Route, float]:
    spent = []
    for _ in range(2):
        started = time.process_time()
        route = router.route(row.query)
        spent.append(time.process_time() - started)
    return route, min(spent)


def show(row: Row, route: Route) -> None:
    query = row.query
    text = query.messages[-1].text if query.messages else f"{query.prompt}\n⌶{query.suffix}"
    print(f"=== {row.kind} {row.name}: {row.expected} taken for {route.language} ({route.reason})")
    print(text if len(text) < 1500 else f"{text[:900]}\n[...]\n{text[-500:]}")


if __name__ == "__main__":
    main()
