"""Figures of matplotlib as PNG: the same data give the same bytes."""

from __future__ import annotations

import io
from typing import Any

from subllm.report.extra import drawing

DPI = 120


def new_figure(width: float, height: float) -> Any:
    """Sizes in inches. Raises MissingExtraError without matplotlib."""
    figure_module = drawing("matplotlib.figure")
    agg = drawing("matplotlib.backends.backend_agg")
    figure = figure_module.Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    agg.FigureCanvasAgg(figure)
    return figure


def png(figure: Any) -> bytes:
    out = io.BytesIO()
    # Without the program's version, so that pictures change only with what they show.
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
