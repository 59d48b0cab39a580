"""A study's figures for other tools: one row for each, numbers in full."""

from __future__ import annotations

from subllm.measuring.report.study import paper
from subllm.measuring.report.study.boards import boards
from subllm.measuring.report.study.records import DENSE, Recipe, Score, Study
from subllm.measuring.report.study.tables import kept_share
from subllm.measuring.report.tables import Cell as TableCell
from subllm.measuring.report.tables import Column, Table

_SCORES = (
    "base", "method", "pattern", "values", "head", "model", "calibration", "sequences", "length",
    "task", "language", "prompt", "temperature", "top_p", "seed", "samples", "problems",
    "score", "value", "low", "high", "harness", "toolchain", "data", "data_digest", "model_digest",
    "seconds",
)  # fmt: skip
_TABLE_IV = (
    "source", "base", "method", "pattern", "score", "calibrated_on", "language", "value", "low",
    "high", "kept", "kept_low", "kept_high",
)  # fmt: skip


def all_scores(study: Study) -> Table:
    """Every score of every cell, shares of 1."""
    rows: list[list[TableCell]] = []
    for cell in study.cells:
        model, how = cell.model, cell.drawing
        sampling: list[TableCell] = [None, None, None, None]
        if how is not None:
            sampling = [how.prompt, how.temperature, how.top_p, how.seed]
        for score in cell.scores:
            rows.append(
                [
                    *(model.base, model.method, model.pattern, model.values, model.head),
                    *(model.name, model.calibration, model.sequences, model.length),
                    *(cell.task, cell.language, *sampling, cell.samples, cell.asked),
                    *(score.name, score.value, score.low, score.high),
                    *(cell.harness, cell.tools.get("toolchain")),
                    *(cell.data.source, cell.data.digest, model.digest, cell.seconds),
                ]
            )
    return Table([Column(title) for title in _SCORES], rows)


def table_iv(study: Study) -> Table:
    """Sub-models x languages, ours and the paper's in the same form; shares of 1."""
    rows: list[list[TableCell]] = []
    for recipe in study.recipes:
        for board in boards(study, recipe):
            if not board.score.startswith("pass@"):
                continue
            for row in board.rows:
                for column in board.columns:
                    score = board.at(row, column)
                    if score is None:
                        continue
                    kept = None if row == DENSE else kept_share(study, board, row, column)
                    rows.append([*_ours(recipe), board.measure, row, column, *_bounded(score),
                                 *_bounded(kept)])  # fmt: skip
    for row, scores in paper.TABLE_IV.items():
        for column, value in scores.items():
            kept_there = None if row == DENSE else paper.retention(row, column)
            rows.append(
                [
                    *(paper.TITLE, paper.TABLE_IV_MODEL, "wanda", "50%", paper.TABLE_IV_SCORE),
                    *(row, column, value / 100, None, None, kept_there, None, None),
                ]
            )
    return Table([Column(title) for title in _TABLE_IV], rows)


def _ours(recipe: Recipe) -> list[TableCell]:
    return ["ours", recipe.base, recipe.method, recipe.pattern]


def _bounded(score: Score | None) -> list[TableCell]:
    return [None, None, None] if score is None else [score.value, score.low, score.high]
