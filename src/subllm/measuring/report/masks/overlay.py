"""The overlay picture: pieces of weight matrices with kept, dropped and differing weights.

An HTML page that loads nothing, drawn by treescope's array viewer: hovering tells the
weight under the pointer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from subllm.measuring.report.canvas import library
from subllm.measuring.report.masks.windows import WindowRecord

Colour = tuple[int, int, int]
NONE: Colour = (244, 244, 244)
ALL: Colour = (52, 52, 72)
TWO: Colour = (206, 206, 220)
# Of weights that one model keeps alone; told apart by the colour-blind too (Okabe and Ito).
ALONE: tuple[Colour, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (213, 94, 0), (0, 114, 178),
)  # fmt: skip
_PIXELS = 6
_COARSE_PIXELS = 4
_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5em; color: #222; background: #fff }
h1 { font-size: 1.4em } h2 { font-size: 1.1em; margin: 2em 0 0 }
p { max-width: 75em; margin: .3em 0 }
.swatch { display: inline-block; width: .9em; height: .9em; margin: 0 .35em 0 1em;
          border: 1px solid #999; vertical-align: -.1em }
"""


def overlay_page(windows: Sequence[WindowRecord], labels: Sequence[str], title: str) -> str:
    """The page: for each window the weights as every model keeps them, the masks on top of
    each other, and the whole matrix in coarse cells.

    labels  of the models, short, in the order of the records
    Raises MissingExtraError without treescope, UsageError for a damaged record.
    """
    treescope = library("treescope")
    # treescope writes labels into scripts as they are.
    labels = [re.sub(r"[<>&]", "?", label) for label in labels]
    legend = "".join(
        f'<span class="swatch" style="background: rgb{colour}"></span>{escape(text)}'
        for text, colour in _legend(labels)
    )
    parts = [
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style>\n",
        f"<h1>{escape(title)}</h1>\n",
        "<p>Weights as each sub-model keeps them, one above the other: blue positive, red "
        "negative, dark grey where dropped. Below, their masks on top of each other; the darker, "
        "the more sub-models keep a weight, and colours mark what one keeps alone:</p>\n",
        f"<p>{legend}</p>\n",
    ]
    parts += [_section(treescope, window, labels) for window in windows]
    return "".join([*parts, "</html>\n"])


def _section(treescope: Any, window: WindowRecord, labels: Sequence[str]) -> str:
    (top, left), (rows, cols) = window.at, window.size
    kept, weights = window.kept_array(), window.weights_array().astype(np.float32)
    differing = window.differing_array().astype(np.float32)
    spans = (f"outputs {top} to {top + rows - 1}", f"inputs {left} to {left + cols - 1}")
    items = {
        1: [f"output {index}" for index in range(top, top + rows)],
        2: [f"input {index}" for index in range(left, left + cols)],
    }
    limit = _limit(weights[kept])
    each = treescope.render_array(
        weights,
        valid_mask=kept,
        rows=[1, 0],
        columns=[2],
        axis_labels={0: "sub-models", 1: spans[0], 2: spans[1]},
        axis_item_labels={0: list(labels), **items},
        continuous=True,
        vmin=-limit,
        vmax=limit,
        pixels_per_cell=_PIXELS,
    )
    categories, names, colours = categorised(kept, labels)
    together = treescope.render_array(
        categories[np.newaxis],  # laid out as those above, so that columns line up
        rows=[1, 0],
        columns=[2],
        axis_labels={0: "together", 1: spans[0], 2: spans[1]},
        axis_item_labels={0: ["together"], **items},
        continuous=False,
        colormap=list(colours),
        value_item_labels=dict(enumerate(names)),
        pixels_per_cell=_PIXELS,
    )
    most = float(differing.max())
    coarse = treescope.render_array(
        differing,
        rows=[0],
        columns=[1],
        axis_labels={
            0: f"{window.shape[0]} outputs, {window.cell[0]} in a cell",
            1: f"{window.shape[1]} inputs, {window.cell[1]} in a cell",
        },
        continuous=True,
        around_zero=False,
        vmin=0.0,
        vmax=most or 1.0,
        pixels_per_cell=_COARSE_PIXELS,
    )
    figure = treescope.figures.inline(each, together, coarse)
    drawn = treescope.lowering.render_to_html_as_root(figure.treescope_part)
    says = (
        f"{window.tensor}, {window.shape[0]} x {window.shape[1]}. In full: {spans[0]}, {spans[1]}, "
        f"from the top {', '.join(labels)}. Last picture: the whole matrix in cells of "
        f"{window.cell[0]} x {window.cell[1]} weights, coloured by the share that some sub-models "
        f"keep and some drop, from none to {most:.1%}."
    )
    return f"<h2>layer {window.layer}, {escape(window.role)}</h2>\n<p>{escape(says)}</p>\n{drawn}\n"


def categorised(
    kept: npt.NDArray[np.bool_], labels: Sequence[str]
) -> tuple[npt.NDArray[np.int64], list[str], list[Colour]]:
    """Which models keep a weight, as a number with a name and a colour.

    kept bool [models, rows, columns] -> int64 [rows, columns]. Up to six models every set of
    them has its number (bit i: model i keeps it), for more it is how many there are.
    """
    k = len(labels)
    if k > len(ALONE):
        names = ["kept by none", *(f"kept by {n} of {k}" for n in range(1, k)), "kept by all"]
        return kept.sum(axis=0, dtype=np.int64), names, [_shade(n, k) for n in range(k + 1)]
    numbers = np.tensordot(1 << np.arange(k), kept.astype(np.int64), axes=1)
    names, colours = [], []
    for number in range(1 << k):
        members = [i for i in range(k) if number >> i & 1]
        names.append(_named(members, labels))
        alone = len(members) == 1 < k
        colours.append(ALONE[members[0]] if alone else _shade(len(members), k))
    return numbers, names, colours


def _named(members: Sequence[int], labels: Sequence[str]) -> str:
    if len(members) in (0, len(labels)):
        return "kept by all" if members else "kept by none"
    return "kept by " + ", ".join(labels[i] for i in members)


def _shade(count: int, k: int) -> Colour:
    """None, or between TWO and ALL by how many of the k models keep a weight."""
    if count == 0:
        return NONE
    part = (count - 2) / (k - 2) if k > 2 else 1.0
    red, green, blue = (round(a + max(0.0, part) * (b - a)) for a, b in zip(TWO, ALL, strict=True))
    return red, green, blue


def _legend(labels: Sequence[str]) -> list[tuple[str, Colour]]:
    k = len(labels)
    rows = [("kept by none", NONE)]
    if k <= len(ALONE):
        rows += [(f"{label} alone", ALONE[i]) for i, label in enumerate(labels)]
    if k > 2:
        rows.append(("by some", _shade((k + 2) // 2, k)))
    return [*rows, ("by all", ALL)]


def _limit(weights: npt.NDArray[np.float32]) -> float:
    """Where the colours of weights end: all but the largest hundredth lie within."""
    return float(np.quantile(np.abs(weights), 0.99)) or 1.0 if weights.size else 1.0
