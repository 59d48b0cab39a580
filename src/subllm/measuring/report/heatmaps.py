"""Heat maps as PNG: several panels with one colour scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from subllm.measuring.report.canvas import new_figure, png

COLOURS = "viridis"
_CELL = 0.22  # inches wide, where nothing is written into cells
_WRITTEN_CELL = 0.52
_ROW = 0.26  # inches high
_LETTER = 0.075  # of a label, per character
_MARGIN = 0.55  # around a panel, for its title and labels


@dataclass(frozen=True)
class Panel:
    """`values` [rows, columns] in [0, 1] or any other range; NaN stays empty."""

    title: str
    values: npt.NDArray[np.float64]
    row_labels: Sequence[str]
    column_labels: Sequence[str]

    def __post_init__(self) -> None:
        labels = (len(self.row_labels), len(self.column_labels))
        if self.values.shape != labels:
            raise ValueError(f"values {self.values.shape} under labels {labels}")


def heatmaps(
    panels: Sequence[Panel],
    *,
    title: str,
    scale: str,
    across: int = 1,
    form: str = "",
    limits: tuple[float, float] | None = None,
) -> bytes:
    """A PNG of panels of one size, `across` in a row.

    scale   what the colours mean, at the colour bar
    form    format specification of the numbers in the cells; none are written by default
    limits  of the colours; by default the smallest and largest value of all panels

    The same panels give the same bytes. Raises MissingExtraError without matplotlib.
    """
    low, high = limits or _limits(panels)
    down = math.ceil(len(panels) / across)
    width, height = _panel_size(panels[0], form)
    figure = new_figure(width * across + 1.0, height * down + 0.5)
    axes = figure.subplots(down, across, squeeze=False)
    image: Any = None
    for axis, panel in zip(axes.flat, panels, strict=False):
        image = axis.imshow(panel.values, cmap=COLOURS, vmin=low, vmax=high, aspect="auto")
        axis.set_title(panel.title, fontsize=9, loc="left")
        _label(axis, panel, form)
        if form:
            _write(axis, panel.values, form, (low + high) / 2)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, aspect=30)
    bar.set_label(scale, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return png(figure)


def _limits(panels: Sequence[Panel]) -> tuple[float, float]:
    """Of what is drawn; never an empty range, which would have no colours."""
    values = np.concatenate([panel.values[np.isfinite(panel.values)] for panel in panels])
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)


def _panel_size(panel: Panel, form: str) -> tuple[float, float]:
    """Inches, labels included."""
    rows, cols = panel.values.shape
    cell = _WRITTEN_CELL if form else _CELL
    longest = max((len(label) for label in panel.row_labels), default=0)
    below = max((len(label) for label in panel.column_labels), default=0)
    slanted = below > _fitting(form)
    return (
        max(2.5, cols * cell + longest * _LETTER + _MARGIN),
        max(1.3, rows * _ROW + (below * _LETTER if slanted else 0.15) + _MARGIN),
    )


def _fitting(form: str) -> int:
    """Characters of a column label that fit below their column."""
    return int((_WRITTEN_CELL if form else _CELL) / _LETTER)


def _label(axis: Any, panel: Panel, form: str) -> None:
    rows, cols = panel.values.shape
    slanted = max(map(len, panel.column_labels), default=0) > _fitting(form)
    axis.set_xticks(range(cols), panel.column_labels, fontsize=7, rotation=90 if slanted else 0)
    axis.set_yticks(range(rows), panel.row_labels, fontsize=7)
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)


def _write(axis: Any, values: npt.NDArray[np.float64], form: str, middle: float) -> None:
    """Numbers in the cells, dark on the bright half of the colours."""
    for (row, col), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "black" if value > middle else "white"
            axis.text(col, row, format(value, form), ha="center", va="center",
                      fontsize=7, color=colour)  # fmt: skip
