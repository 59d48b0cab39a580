"""Two models against each other on the same problems.

The interval answers what other problems of this kind would have given: problems are drawn
again with replacement, for both models the same ones. So what makes a problem hard for both
does not widen it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from subllm.measuring.evaluation.intervals import QUANTILES, RESAMPLES, estimator
from subllm.measuring.report.study.boards import Board, boards
from subllm.measuring.report.study.records import DENSE, Cell, Contrast, Study

Floats = npt.NDArray[np.float64]
_SEED = 0


def contrasts_of(study: Study) -> list[Contrast]:
    """Of every table with pass@k: what each sub-model keeps of the dense score, and by how
    much the sub-model of the column's language is better than each other one."""
    found: list[Contrast] = []
    for recipe in study.recipes:
        for board in boards(study, recipe):
            if board.score.startswith("pass@"):
                for column in board.columns:
                    found += _column(board, column)
    unique = {(one.kind, one.a, one.b, one.score): one for one in found}
    return list(unique.values())


def _column(board: Board, column: str) -> list[Contrast]:
    found = []
    rows = [row for row in board.rows if row != DENSE and board.cell(row, column)]
    dense = board.cell(DENSE, column)
    if dense is not None:
        for row in rows:
            found.append(_contrast("retention", board.cells[row, column], dense, board.score))
    own = board.cell(column, column)
    if own is not None:
        for row in rows:
            if row != column:
                found.append(_contrast("margin", own, board.cells[row, column], board.score))
    return [one for one in found if one is not None]


def _contrast(kind: str, a: Cell, b: Cell, score: str) -> Contrast | None:
    """None where `b` solves nothing and is divided by."""
    k = next((one.k for one in a.scores if one.name == score), None)
    assert k is not None, "only pass@k is paired"
    combine: Callable[[Floats, Floats], Floats] = np.divide if kind == "retention" else np.subtract
    left, right = _chances(a, b, k)
    if kind == "retention" and not right.any():
        return None
    random = np.random.default_rng(_SEED)
    again = random.integers(0, a.asked, size=(RESAMPLES, a.asked))
    means_a, means_b = left[again].mean(axis=1), right[again].mean(axis=1)
    if kind == "retention":
        solved = means_b > 0  # problems of which the dense model solves none say nothing
        means_a, means_b = means_a[solved], means_b[solved]
    low, high = np.quantile(combine(means_a, means_b), QUANTILES)
    value = combine(np.array([left.mean()]), np.array([right.mean()]))[0]
    return Contrast(
        kind="retention" if kind == "retention" else "margin",
        a=a.identity,
        b=b.identity,
        score=score,
        value=float(value),
        low=float(low),
        high=float(high),
    )


def _chances(a: Cell, b: Cell, k: int) -> tuple[Floats, Floats]:
    """Of each problem the chance that k samples solve it, problems in the same order. Those
    that neither solves come last."""
    solved = sorted({*a.passed, *b.passed})
    pad = [0.0] * (a.asked - len(solved))
    left, right = (
        np.array([estimator(cell.samples, cell.passed.get(one, 0), k) for one in solved] + pad)
        for cell in (a, b)
    )
    return left, right
