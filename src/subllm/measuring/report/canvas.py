"""Figures of matplotlib as PNG: the same data give the same bytes. The libraries that make
pictures are an optional part of subllm, imported when one is asked for."""

from __future__ import annotations

import importlib
import io
from typing import Any

from subllm.errors import MissingExtraError

DPI = 120


def library(module: str) -> Any:
    """A module of matplotlib or treescope. Raises MissingExtraError where it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"pictures need {module.partition('.')[0]}, which cannot be imported ({error}); "
            "run: pip install 'subllm[report]'"
        ) from error


def new_figure(width: float, height: float) -> Any:
    """Sizes in inches. Raises MissingExtraError without matplotlib."""
    figure_module = library("matplotlib.figure")
    agg = library("matplotlib.backends.backend_agg")
    figure = figure_module.Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    agg.FigureCanvasAgg(figure)
    return figure


def png(figure: Any) -> bytes:
    out = io.BytesIO()
    # Without the program's version, so that pictures change only with what they show.
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
