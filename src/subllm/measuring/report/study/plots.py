"""The pictures of a study, from its records alone."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from subllm.measuring.report.canvas import library, new_figure, png
from subllm.measuring.report.heatmaps import Panel, heatmaps
from subllm.measuring.report.masks.overlay import ALONE
from subllm.measuring.report.study import paper
from subllm.measuring.report.study.boards import Board, boards, language_title
from subllm.measuring.report.study.records import DENSE, Recipe, Study
from subllm.measuring.report.study.tables import DomainRow, domain_rows

_GREY = "#888888"
# Okabe and Ito, as in the overlay picture.
_COLOURS = tuple(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in (ALONE[5], ALONE[4], *ALONE[:4]))


def table_iv_picture(study: Study) -> bytes | None:
    """PNG: the share of the dense score that each sub-model keeps in each language, a panel for
    each table of pass@k and one for the paper. None where there is no such table."""
    shown = [board for board in _pass_boards(study) if DENSE in board.rows]
    if not shown:
        return None
    languages = list(dict.fromkeys(column for board in shown for column in board.columns))
    rows = list(dict.fromkeys(row for board in shown for row in board.rows if row != DENSE))
    several = len(study.recipes) > 1
    panels = []
    for board in shown:
        values = [[_kept(board, row, column) for column in languages] for row in rows]
        what = f"{board.recipe.title}: {board.title}" if several else board.title
        panels.append(_panel(what, values, rows, languages))
    values = [[paper.retention(row, column) for column in languages] for row in rows]
    published = f"{paper.TITLE}: {paper.TABLE_IV_MODEL}, {paper.TABLE_IV_SCORE}"
    panels.append(_panel(published, values, rows, languages))
    title = "Table IV as share of the dense score kept: calibrated on (down), asked in (across)"
    return heatmaps(
        panels,
        title=title if several else f"{study.recipes[0].title}\n{title}",
        scale="share of the dense score",
        across=2,
        form=".2f",
        limits=(0.0, 1.0),
    )


def _panel(
    title: str, values: list[list[float | None]], rows: list[str], columns: list[str]
) -> Panel:
    """The title in lines as long as the panel is wide."""
    filled = [[np.nan if value is None else value for value in row] for row in values]
    titles = [language_title(column) for column in columns]
    title = textwrap.fill(title, max(32, 10 * len(columns)))
    return Panel(title, np.array(filled, np.float64), rows, titles)


def _kept(board: Board, row: str, column: str) -> float | None:
    value, dense = board.value(row, column), board.value(DENSE, column)
    return None if value is None or not dense else value / dense


def scores_picture(study: Study) -> bytes | None:
    """PNG: pass@k with its intervals, a panel for each language, a colour for each measure;
    the dense base as a line. None without pass@k."""
    shown = _pass_boards(study)
    if not shown:
        return None
    recipes = list(dict.fromkeys(board.recipe for board in shown))
    languages = list(dict.fromkeys(column for board in shown for column in board.columns))
    most = max(len(_rows(shown, recipe)) for recipe in recipes)
    measures = list(dict.fromkeys((board.task, board.measure) for board in shown))
    beside = max(1, len(languages) // 2)  # legends in a row
    below = math.ceil((len(measures) + 2) / beside)
    figure = new_figure(
        2.2 + 2.2 * len(languages), (0.6 + 0.3 * most) * len(recipes) + 0.8 + 0.2 * below
    )
    axes = figure.subplots(len(recipes), len(languages), squeeze=False, sharex=True)
    colours = {one: _COLOURS[i % len(_COLOURS)] for i, one in enumerate(measures)}
    for down, recipe in enumerate(recipes):
        rows = _rows(shown, recipe)
        for across, language in enumerate(languages):
            axis = axes[down][across]
            own = [board for board in shown if board.recipe == recipe]
            for index, board in enumerate(own):
                shift = (index - (len(own) - 1) / 2) * 0.22
                _points(axis, board, language, rows, shift, colours[board.task, board.measure])
            axis.set_ylim(len(rows) - 0.5, -0.5)
            axis.set_yticks(range(len(rows)), rows if across == 0 else [""] * len(rows), fontsize=8)
            axis.set_title(language_title(language), fontsize=9, loc="left")
            axis.tick_params(labelsize=8)
            axis.grid(axis="x", alpha=0.3)
        axes[down][0].set_ylabel(recipe.title if len(recipes) > 1 else "calibrated on", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("percent solved", fontsize=8)
        axis.set_xlim(left=-2)  # whole markers at 0
    handles = [_marker(colour, "o", " ".join(measure)) for measure, colour in colours.items()]
    handles += [_marker(_GREY, "D", "own language"), _line("dense")]
    figure.legend(
        handles=handles, loc="outside lower left", ncols=beside, fontsize=8, frameon=False
    )  # fmt: skip
    title = "pass@k and 95 % intervals over problems"
    if len(recipes) == 1:
        title = f"{recipes[0].title}\n{title}"
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return png(figure)


def _points(
    axis: Any, board: Board, language: str, rows: Sequence[str], shift: float, colour: str
) -> None:
    for place, row in enumerate(rows):
        score = board.at(row, language)
        if score is None:
            continue
        value = 100 * score.value
        low = 100 * (score.value if score.low is None else score.low)
        high = 100 * (score.value if score.high is None else score.high)
        axis.plot([low, high], [place + shift] * 2, color=colour, linewidth=1.2, alpha=0.6)
        own = row == language
        axis.plot(value, place + shift, "D" if own else "o", color=colour, markersize=5)
        if row == DENSE:
            axis.axvline(value, color=colour, linestyle=":", linewidth=1)


def table_iii_picture(study: Study) -> bytes | None:
    """PNG: the dense score and that of the best sub-model, ours and the paper's, domain by
    domain. None when nothing of ours is in the table."""
    rows = domain_rows(study)
    if not any(row.ours for row in rows):
        return None
    measured = {row.domain for row in rows if row.ours}
    rows = [row for row in rows if row.domain in measured]
    figure = new_figure(8.0, 1.1 + 0.26 * len(rows))
    axis = figure.subplots()
    for place, row in enumerate(rows):
        colour = _COLOURS[1] if row.ours else _GREY
        axis.plot([row.after, row.before], [place, place], color=colour, linewidth=1.5)
        axis.plot(row.before, place, "o", color="white", markeredgecolor=colour, markersize=6)
        axis.plot(row.after, place, "o", color=colour, markersize=6)
    axis.set_yticks(range(len(rows)), [_row_label(row) for row in rows], fontsize=7)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlim(left=0)
    axis.set_xlabel("percent: hollow the dense model, filled its best sub-model", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(axis="x", alpha=0.3)
    title = f"Table III: ours in colour, {paper.TITLE} in grey"
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return png(figure)


def _row_label(row: DomainRow) -> str:
    measure = f", {row.measure}" if row.measure else ""
    return f"{row.domain}: {row.model}{measure} ({row.calibration})"


@dataclass(frozen=True)
class Lines:
    """One panel of Figure 2, in percent: calibration set -> score. code: of sub-models that
    were not calibrated on code, math: not on mathematics; dense: domain -> score."""

    recipe: Recipe
    code: dict[str, float]
    math: dict[str, float]
    dense: dict[str, float]


def figure_2_lines(study: Study) -> list[Lines]:
    """Of the recipes that have something to show. Code is pass@k in Python, of the table with
    the largest k; mathematics the first of its tasks."""
    found = []
    for recipe in study.recipes:
        domains = {study.label(cell.model): cell.model.domain for cell in study.of(recipe)}
        lines: dict[str, dict[str, float]] = {}
        for board in boards(study, recipe):  # small k before large, which then replaces it
            if board.score.startswith("pass@") and "python" in board.columns:
                lines["code"] = _column(board, "python")
            for column in board.columns if board.task == "domains" else ():
                cells = [cell for (_, c), cell in board.cells.items() if c == column]
                if cells[0].domain == "math":
                    lines.setdefault("math", _column(board, column))
        code, maths = (
            {row: value for row, value in lines.get(kind, {}).items()
             if row != DENSE and domains[row] != kind}
            for kind in ("code", "math")
        )  # fmt: skip
        dense = {kind: line[DENSE] for kind, line in lines.items() if DENSE in line}
        if code and maths:
            found.append(Lines(recipe, code, maths, dense))
    return found


def _column(board: Board, column: str) -> dict[str, float]:
    values = {row: board.value(row, column) for row in board.rows}
    return {row: 100 * value for row, value in values.items() if value is not None}


def figure_2_picture(study: Study) -> bytes | None:
    """PNG, a panel for each recipe: accuracy on code of each sub-model that was calibrated on
    something else, and the same for mathematics. None unless both were measured."""
    panels = figure_2_lines(study)
    if not panels:
        return None
    figure = new_figure(1.5 + 4.2 * len(panels), 3.8)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        sets = list(dict.fromkeys((*panel.code, *panel.math)))
        for kind, line, colour, mark in (
            ("code", panel.code, _COLOURS[0], "o-"), ("math", panel.math, _COLOURS[1], "s-"),
        ):  # fmt: skip
            places = [sets.index(one) for one in line]
            axis.plot(places, list(line.values()), mark, color=colour, label=f"on {kind}")
            if kind in panel.dense:
                axis.axhline(panel.dense[kind], color=colour, linestyle=":", linewidth=1)
        axis.set_xticks(range(len(sets)), sets, fontsize=7, rotation=60, ha="right")
        axis.set_ylim(bottom=0)
        axis.set_title(panel.recipe.title, fontsize=8, loc="left")
        axis.tick_params(axis="y", labelsize=8)
        axis.grid(axis="y", alpha=0.3)
        axis.legend(fontsize=8)
    axes[0].set_ylabel("percent; dotted: the dense base", fontsize=8)
    title = "Figure 2: code by sub-models not calibrated on it, and mathematics likewise"
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return png(figure)


def _pass_boards(study: Study) -> list[Board]:
    found = (board for recipe in study.recipes for board in boards(study, recipe))
    return [board for board in found if board.score.startswith("pass@")]


def _rows(shown: Sequence[Board], recipe: Recipe) -> list[str]:
    rows = (row for board in shown if board.recipe == recipe for row in board.rows)
    return list(dict.fromkeys(rows))


def _marker(colour: str, marker: str, label: str) -> Any:
    line = _lines_module().Line2D
    return line([], [], color=colour, marker=marker, markersize=5, linewidth=0, label=label)


def _line(label: str) -> Any:
    return _lines_module().Line2D([], [], color=_GREY, linestyle=":", label=label)


def _lines_module() -> Any:
    return library("matplotlib.lines")
