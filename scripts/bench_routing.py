"""How often the router finds the language of real code, and how long it takes.

  scripts/bench routing [--part tune|test] [--rows 100] [--wrong] [--json FILE]

Files of released packages (scripts/routing/projects.yaml; fetched on the first run) are cut at
random into whole files, prompts around a cursor, fragments of 5 to 30 lines and questions; see
scripts/routing/cases.py. The detector is trained on the packages of `train` alone, rules and
thresholds are chosen on `tune`; `test` is for figures, --wrong does not show its rows.
Times are CPU time of `Router.route` on one thread, the lesser of two calls.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "routing"))

from cases import ROWS, Row, rows
from corpus import files

from subllm.routing.languages import DENSE, LANGUAGES
from subllm.routing.router import Query, Route, Router, SubModel
from subllm.routing.sessions import Sessions

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
    for row in rows(files(options.part), options.part, options.rows):
        route, seconds = timed(router, row)
        answered = route.model.rpartition("-")[2]
        good = answered == (row.expected or DENSE)
        group = row.written if row.written in LANGUAGES else "others"
        right[row.kind][group].append(good)
        taken[row.kind].append(seconds)
        if not good:
            confused[row.kind, row.expected or row.written, f"{answered} ({route.reason})"] += 1
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
    for (kind, written, answered), times in confused.most_common(25):
        print(f"  {times:3} {kind}: {written} -> {answered}")
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
