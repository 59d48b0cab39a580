"""The tables of a comparison of masks, from its records alone."""

from __future__ import annotations

from subllm.measuring.report.masks.records import Comparison, Pair, PairKind
from subllm.measuring.report.tables import WIDTH, Cell, Column, Table, number

MEANS: dict[PairKind, str] = {
    "within": "mean within a language",
    "across": "mean across languages",
    "general": "mean with general",
}
_DISTANCE = ".3f"
_MEGABYTES = ",.1f"
_PERCENT = ".1%"
_DISTANCE_WIDTH = 5  # "0.312"
JACCARD = "Jaccard distance of kept weights: 0 the same, 1 nothing in common"


def models_table(comparison: Comparison) -> Table:
    """What is compared and what it takes on disk."""
    total = comparison.overlap()
    rows: list[list[Cell]] = [
        [
            letter(index),
            comparison.labels[index],
            f"{model.pattern} {model.values}",
            model.method,
            model.calibration or "none",
            total.density(index),
            model.own_bytes / 1e6,
            model.shared_bytes / 1e6,
        ]
        for index, model in enumerate(comparison.models)
    ]
    columns = [
        Column(""), Column("MODEL"), Column("PATTERN"), Column("METHOD"), Column("CALIBRATION"),
        number("KEPT", _PERCENT), number("OWN MB", _MEGABYTES), number("+ MB", _MEGABYTES),
    ]  # fmt: skip
    blobs = {model.shared_blob: model.shared_bytes for model in comparison.models}
    own = sum(model.own_bytes for model in comparison.models)
    disk = (own + sum(blobs.values())) / 1e6
    count = "one" if len(blobs) == 1 else f"{len(blobs)} different"
    title = (
        f"{comparison.header.base}: {total.weights:,} weights in "
        f"{len(comparison.matrices)} matrices"
    )
    note = f"+ embedding, head and norms ({count}); {disk:,.1f} MB on disk together"
    return Table(columns, rows, title, note)


def distance_table(comparison: Comparison) -> Table:
    """Every pair by type, over all layers, and the means of pairs of one kind."""
    overlaps = [comparison.overlap(), *(comparison.overlap(role=r) for r in comparison.roles)]
    columns = [Column("PAIR"), number("ALL", _DISTANCE)]
    columns += [number(role.upper(), _DISTANCE) for role in comparison.roles]
    labels = pair_labels(comparison)
    rows: list[list[Cell]] = [
        [label, *(overlap.distance(pair.a, pair.b) for overlap in overlaps)]
        for pair, label in zip(comparison.pairs, labels, strict=True)
    ]
    for kind, title in MEANS.items():
        means = [comparison.mean_distance(kind, overlap) for overlap in overlaps]
        if means[0] is not None and len(comparison.pairs) > 1:
            rows.append([title, *means])
    pruned = [pair for pair in comparison.pairs if pair.kind != "dense"] or comparison.pairs
    chances = sorted({f"{overlaps[0].chance(pair.a, pair.b):.3f}" for pair in pruned})
    span = chances[0] if len(chances) == 1 else f"{chances[0]} to {chances[-1]}"
    note = f"independent masks as dense as these: {span}"
    if len(rows) > len(labels) and not all(pair.alike for pair in pruned):
        note += "\nmeans are of pairs with one pattern and method"
    return Table(columns, rows, JACCARD, note)


def layers_table(comparison: Comparison, pair: Pair) -> Table:
    """One pair, layer by layer and type by type."""
    columns = [number("LAYER", "d"), number("ALL", _DISTANCE)]
    columns += [number(role.upper(), _DISTANCE) for role in comparison.roles]
    rows: list[list[Cell]] = []
    for layer in comparison.layers:
        overlaps = [comparison.overlap(layer=layer)]
        overlaps += [comparison.overlap(layer=layer, role=role) for role in comparison.roles]
        rows.append([layer, *(overlap.distance(pair.a, pair.b) for overlap in overlaps)])
    names = f"{comparison.labels[pair.a]} and {comparison.labels[pair.b]}"
    return Table(columns, rows, f"{names} by layer, Jaccard distance")


def bytes_table(comparison: Comparison) -> Table:
    """How much of each model's kept values lies where others keep theirs."""
    total = comparison.overlap()
    columns = [
        Column("MODEL"), number("KEPT MB", _MEGABYTES), number("SHARED MB", _MEGABYTES),
        number("BY ALL MB", _MEGABYTES), number("UNIQUE MB", _MEGABYTES),
        number("UNIQUE", _PERCENT),
    ]  # fmt: skip
    generals = comparison.generals
    columns += [number(f"IN {comparison.labels[g]}".upper(), _PERCENT) for g in generals]
    rows: list[list[Cell]] = []
    for index, label in enumerate(comparison.labels):
        kept, alone = total.kept_bits[index] / 8e6, total.alone_bits[index] / 8e6
        row: list[Cell] = [label, kept, kept - alone, total.by_all_bits[index] / 8e6, alone]
        row.append(float(total.alone[index] / max(1, total.both[index, index])))
        row += [None if g == index else total.share(index, g) for g in generals]
        rows.append(row)
    kept_sum = sum(int(total.both[i, i]) for i in range(len(rows)))
    note = (
        "by place: quantised values at a shared place may differ\n"
        f"{kept_sum / 1e6:,.1f} M kept weights lie at {total.by_any / 1e6:,.1f} M places; "
        f"{total.by_all / 1e6:,.1f} M places are in all"
    )
    return Table(columns, rows, "Values of kept weights, shared and unique", note)


def tidy_table(comparison: Comparison) -> Table:
    """Every pair in every matrix, for other tools."""
    titles = ["layer", "type", "tensor", "a", "b", "kind", "weights"]
    titles += ["kept_a", "kept_b", "kept_by_both", "distance"]
    rows: list[list[Cell]] = []
    for matrix in comparison.matrices:
        overlap = comparison.overlap(layer=matrix.layer, role=matrix.role)
        for pair in comparison.pairs:
            a, b = pair.a, pair.b
            both = matrix.both
            names = (comparison.models[a].name, comparison.models[b].name, pair.kind)
            rows.append(
                [
                    *(matrix.layer, matrix.role, matrix.tensor, *names, overlap.weights),
                    *(both[a][a], both[b][b], both[a][b], overlap.distance(a, b)),
                ]
            )
    return Table([Column(title) for title in titles], rows)


def pair_labels(comparison: Comparison) -> list[str]:
    """`python / java`, or the letters of the models' table where names do not fit."""
    named = [
        f"{comparison.labels[pair.a]} / {comparison.labels[pair.b]}" for pair in comparison.pairs
    ]
    room = WIDTH - (_DISTANCE_WIDTH + 2) * (1 + len(comparison.roles))
    if max(map(len, named)) <= room:
        return named
    return [f"{letter(pair.a)} / {letter(pair.b)}" for pair in comparison.pairs]


def letter(index: int) -> str:
    """A, B, ... Z, A1, B1, ..."""
    turn, place = divmod(index, 26)
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[place] + (str(turn) if turn else "")
