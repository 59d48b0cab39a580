"""Curves of recoveries, from what stored sub-models say of theirs.

  scripts/bench curve MODEL... [--dense MODEL] [--solved MODEL=TOKENS:NAME ...] [--out DIR]

A point of a curve that was kept as a model of its own (NAME) is shown with its pass@1, from the
records that `subllm eval NAME --task ...` left in the store (--task, --language say which).
Writes curve.json, curve.md and curve.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from subllm.errors import StoreError, SubllmError
from subllm.measuring.evaluation.record_file import read_records
from subllm.measuring.evaluation.records import Summary
from subllm.measuring.report.curve import Curve, Solved, picture, table
from subllm.models.store.store import Store
from subllm.settings import load_settings


def main(argv: list[str]) -> int:
    options = parse(argv)
    store = Store(load_settings().home)
    try:
        dense = None
        if options.dense:
            dense = solved(options, options.dense, 0).value
        curves = [curve(options, store, name, dense) for name in options.models]
    except SubllmError as error:
        print(f"bench curve: {error}", file=sys.stderr)
        return 1
    shown = table(curves, options.title, options.note)
    print(shown.plain())
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "curve.md").write_text(shown.markdown())
    (options.out / "curve.png").write_bytes(picture(curves, options.title, options.note))
    document = [
        {
            "model": one.title,
            "dense": one.dense,
            "points": [point.model_dump() for point in one.points],
            "solved": [vars(each) for each in one.solved],
        }
        for one in curves
    ]
    (options.out / "curve.json").write_text(json.dumps(document, indent=1) + "\n")
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench curve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="recovered sub-models of the store")
    add("--dense", metavar="MODEL", help="the dense base as a model, evaluated as well")
    add("--solved", nargs="*", default=[], metavar="MODEL=TOKENS:NAME", help="kept points")
    add("--task", default="humaneval-x")
    add("--language", default="python")
    add("--title", default="Recovery")
    add("--note", default="")
    add("--out", type=Path, default=Path("docs/recovery"))
    return parser.parse_args(argv)


def curve(options: argparse.Namespace, store: Store, name: str, dense: float | None) -> Curve:
    """Raises StoreError for a model without a recovery, or a point that was not evaluated."""
    record = store.run_record(store.resolve(name))
    if record is None or record.recovery is None:
        raise StoreError(f"{name} was not recovered, or its run record is gone")
    points = record.recovery.curve
    found = []
    for one in options.solved:
        model, _, rest = one.partition("=")
        tokens, _, kept = rest.partition(":")
        if model == name:
            found.append(solved(options, kept, int(tokens)))
    return Curve(name, points, tuple(sorted(found, key=lambda each: each.tokens)), dense)


def solved(options: argparse.Namespace, name: str, tokens: int) -> Solved:
    """Raises StoreError where `subllm eval` did not measure the model."""
    folder = load_settings().home / "evaluations"
    pattern = f"{options.task}-{options.language}-{name.replace(':', '-')}-*.jsonl"
    for path in sorted(folder.glob(pattern), reverse=True):
        header, lines = read_records(path)
        if header.model.name != name:
            continue
        figures = [line.figures for line in lines if isinstance(line, Summary)]
        for share in figures[-1]["pass"] if figures else []:
            if share["k"] == 1:
                return Solved(tokens, share["value"], share["low"], share["high"])
    raise StoreError(f"no records of {name}; run 'subllm eval {name} --task {options.task}'")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
