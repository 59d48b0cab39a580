"""`subllm compare`: which weights sub-models keep, and how many of them are the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from subllm.cli import console
from subllm.cli.context import complete_name, open_context

if TYPE_CHECKING:
    from subllm.measuring.report.masks.records import Comparison, Overlap, Pair
    from subllm.models.store.store import Store

EXAMPLES = """
subllm compare qwen2.5-coder:0.5b             all sub-models of a base
subllm compare smollm2:135m-python smollm2:135m-java --layers
subllm compare qwen2.5-coder:0.5b --out masks  also files and pictures
subllm compare smollm2:135m --out masks --draw 0,29 --window 48x96+512+0
"""


def command(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="Two or more models of one base; a base stands for all its sub-models.",
            autocompletion=complete_name,
        ),
    ],
    layers: Annotated[
        bool, typer.Option("--layers", help="Also show every pair layer by layer.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write records (.jsonl), tables (.md, .csv), heat maps (.png) and the overlay "
            "picture (.html) there.",
        ),
    ] = None,
    draw: Annotated[
        str,
        typer.Option(
            metavar="LAYERS", help="Layers in the overlay picture: 0,12,23. Default: the middle."
        ),
    ] = "",
    window: Annotated[
        str,
        typer.Option(
            metavar="ROWSxCOLS+ROW+COL",
            help="Which weights of each matrix it shows in full; 32x96 begins at row 0, column 0.",
        ),
    ] = "32x96",
    json_output: Annotated[
        bool, typer.Option("--json", help="Print all counts as one JSON document.")
    ] = False,
) -> None:
    """Compare which weights sub-models keep.

    The Jaccard distance of two models is 1 - |both keep| / |either keeps|: 0 for the same
    weights, 1 for nothing in common. It is counted exactly, over all layers together, by
    type of matrix (q k v o gate up down) and by layer. Patterns may differ.

    A weight counts as shared when two models keep it at the same place. Its quantised value
    may differ, for scales follow what else is kept.
    """
    from subllm.cli.progress_bars import RichProgress
    from subllm.errors import UsageError
    from subllm.measuring.evaluation.mask_overlap import compare_models
    from subllm.measuring.evaluation.mask_windows import Window, mask_windows, middle_layer

    if out is None and (draw or window != "32x96"):
        raise UsageError("--draw and --window describe a picture; say where with --out DIR")
    shown = Window.parse(window)
    chosen = _layers(draw)
    store = open_context().store
    models = _expanded(store, names)
    files: list[Path] = []
    with RichProgress() as progress:
        comparison = compare_models(store, models, progress)
        if out is not None:
            from subllm.measuring.report.masks.report import write_report

            chosen = chosen or [middle_layer(comparison.layers)]
            windows = mask_windows(store, models, chosen, shown)
            files = write_report(comparison, windows, out, progress)
    if json_output:
        console.emit_json(_document(comparison, files))
        return
    _show(comparison, by_layer=layers)
    for file in files:
        console.note(f"wrote {file}")


def _layers(text: str) -> list[int]:
    """`0,12,23`; empty for none."""
    from subllm.errors import UsageError

    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"layers {text!r} are not understood; give numbers, as in --draw 0,12")
    return list(dict.fromkeys(map(int, parts)))


def _expanded(store: Store, names: Sequence[str]) -> list[str]:
    """Bases replaced by their sub-models (the dense ones aside); raises UsageError for a base
    that has fewer than two, where nothing else is named."""
    from subllm.errors import UsageError
    from subllm.models.store.names import kind_of, split_model_name

    stored = store.names()
    found: list[str] = []
    for name in names:
        store.resolve(name)
        if kind_of(name) == "model":
            found.append(name)
            continue
        parts = [(n, split_model_name(n)) for n in stored if kind_of(n) == "model"]
        own = [n for n, part in parts if part.base == name and part.language != "dense"]
        if len(own) < 2 and len(names) == 1:
            has = f"only {own[0]}" if own else "no sub-model yet"
            raise UsageError(
                f"{name} has {has}; make more with 'subllm extract LANGUAGE --base {name}'"
            )
        found += [n for n in own if n not in names]
    return found


def _show(comparison: Comparison, *, by_layer: bool) -> None:
    from subllm.measuring.report.masks.tables import (
        bytes_table,
        distance_table,
        layers_table,
        models_table,
    )

    tables = [models_table(comparison), distance_table(comparison), bytes_table(comparison)]
    if by_layer:
        tables += [layers_table(comparison, pair) for pair in comparison.pairs]
    console.result("\n".join(table.plain() for table in tables), newline=False)


def _document(comparison: Comparison, files: Sequence[Path]) -> dict[str, Any]:
    total = comparison.overlap()
    by_role = {role: comparison.overlap(role=role) for role in comparison.roles}
    by_layer = {layer: comparison.overlap(layer=layer) for layer in comparison.layers}
    names = [model.name for model in comparison.models]

    def pair_document(pair: Pair) -> dict[str, Any]:
        a, b = pair.a, pair.b
        return {
            "a": names[a],
            "b": names[b],
            "kind": pair.kind,
            "same_pattern_and_method": pair.alike,
            "distance": total.distance(a, b),
            "distance_of_independent_masks": total.chance(a, b),
            "kept_by_both": int(total.both[a, b]),
            "by_type": {role: each.distance(a, b) for role, each in by_role.items()},
            "by_layer": [each.distance(a, b) for each in by_layer.values()],
        }

    return {
        "base": comparison.header.base,
        "weights": total.weights,
        "kept_by_all": total.by_all,
        "kept_by_any": total.by_any,
        "models": [
            comparison.models[index].model_dump() | _kept(comparison, total, index)
            for index in range(len(names))
        ],
        "pairs": [pair_document(pair) for pair in comparison.pairs],
        "mean_distance": {
            kind: comparison.mean_distance(kind, total) for kind in ("within", "across", "general")
        },
        "matrices": [matrix.model_dump(exclude={"record"}) for matrix in comparison.matrices],
        "files": [str(file) for file in files],
    }


def _kept(comparison: Comparison, total: Overlap, index: int) -> dict[str, Any]:
    """What one model keeps, alone and with others; bytes are those of kept values."""
    kept, alone = int(total.kept_bits[index]) / 8, int(total.alone_bits[index]) / 8
    return {
        "kept": int(total.both[index, index]),
        "kept_alone": int(total.alone[index]),
        "density": total.density(index),
        "kept_bytes": kept,
        "shared_value_bytes": kept - alone,
        "unique_value_bytes": alone,
        "kept_in_general": {
            comparison.models[general].name: total.share(index, general)
            for general in comparison.generals
            if general != index
        },
    }
