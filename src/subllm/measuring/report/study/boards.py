"""The cells of a study laid out as tables: models down, languages or tasks across.

Only what compares stands in one column: the same data, as many problems, the same version
of the harness. Where a column could be filled in several ways, the one with most problems
is shown, and the table says how many cells it leaves out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from subllm.measuring.report.study.records import (
    DENSE,
    Cell,
    CellSampling,
    Recipe,
    Score,
    Study,
    row_rank,
)

DOMAINS = ("csr", "math", "translation")
LANGUAGE_TITLES = {"python": "Python", "java": "Java", "cpp": "C++", "javascript": "JS"}


@dataclass(frozen=True)
class Board:
    """task     "domains" where the columns are tasks of domains
    score    name of the scores; "" where each task has its own
    cells    (row, column) -> cell
    left_out cells of other data, fewer problems or another harness
    """

    recipe: Recipe
    task: str
    sampling: CellSampling | None
    score: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: dict[tuple[str, str], Cell] = field(repr=False)
    left_out: int = 0

    @property
    def title(self) -> str:
        """`humaneval-x, greedy pass@1`, `... pass@10 of 10 samples at temperature 0.8`."""
        if self.task == "domains":
            return "tasks of the domains"
        if not self.score.startswith("pass@"):
            return self.score if self.score == self.task else f"{self.task}, {self.score}"
        return f"{self.task}, {self.measure}"

    @property
    def measure(self) -> str:
        """The score and how completions were sampled."""
        how = self.sampling
        if how is None or not self.score.startswith("pass@"):
            return self.score
        asked = "" if how.prompt == "raw" else f", {how.prompt} prompt"
        if not how.temperature:
            return f"greedy {self.score}{asked}"
        counts = sorted({cell.samples for cell in self.cells.values()})
        samples = " or ".join(map(str, counts))
        return f"{self.score} of {samples} samples at temperature {how.temperature:g}{asked}"

    def cell(self, row: str, column: str) -> Cell | None:
        return self.cells.get((row, column))

    def at(self, row: str, column: str) -> Score | None:
        cell = self.cell(row, column)
        if cell is None:
            return None
        return cell.score(self.score) if self.score else cell.scores[0]

    def value(self, row: str, column: str) -> float | None:
        score = self.at(row, column)
        return None if score is None else score.value

    def best(self, column: str) -> tuple[str, ...]:
        """The rows with the best score among the sub-models; all of them if equal."""
        scores = {row: score for row in self.rows
                  if row != DENSE and (score := self.at(row, column)) is not None}  # fmt: skip
        if not scores:
            return ()
        lower = next(iter(scores.values())).better == "lower"
        values = [score.value for score in scores.values()]
        target = min(values) if lower else max(values)
        return tuple(row for row, score in scores.items() if score.value == target)

    @property
    def asked(self) -> tuple[int, ...]:
        """How many problems the columns have, without repeats."""
        return tuple(sorted({cell.asked for cell in self.cells.values()}))


def boards(study: Study, recipe: Recipe) -> list[Board]:
    """All tables of a recipe that have a sub-model in them, in the order of their titles;
    greedy before sampled, small k before large."""
    groups: dict[tuple[Any, ...], list[Cell]] = defaultdict(list)
    for cell in study.of(recipe):
        if cell.domain in DOMAINS:
            groups["domains", "", None].append(cell)
            continue
        for score in cell.scores:
            groups[cell.task, score.name, cell.drawing].append(cell)
    found = [
        _board(study, recipe, task, score, sampling, cells)
        for (task, score, sampling), cells in groups.items()
    ]
    kept = [board for board in found if set(board.rows) - {DENSE}]
    return sorted(kept, key=_rank)


def _rank(board: Board) -> tuple[Any, ...]:
    temperature = board.sampling.temperature if board.sampling else 0.0
    k = next((s.k or 0 for c in board.cells.values() for s in c.scores if s.name == board.score), 0)
    return board.task == "domains", board.task == "perplexity", board.task, temperature, k


def _board(
    study: Study,
    recipe: Recipe,
    task: str,
    score: str,
    sampling: CellSampling | None,
    cells: Iterable[Cell],
) -> Board:
    columns: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        columns[cell.task if task == "domains" else cell.language].append(cell)
    chosen: dict[tuple[str, str], Cell] = {}
    left_out = 0
    for column, candidates in columns.items():
        groups: dict[tuple[Any, ...], list[Cell]] = defaultdict(list)
        for cell in candidates:
            groups[cell.asked, cell.data.digest, cell.harness].append(cell)
        best = max(groups, key=lambda key: (key[0], len(groups[key]), key))
        left_out += len(candidates) - len(groups[best])
        chosen |= {(study.label(cell.model), column): cell for cell in groups[best]}
    rows = sorted({row for row, _ in chosen}, key=row_rank)
    order = sorted(columns, key=row_rank)
    return Board(recipe, task, sampling, score, tuple(order), tuple(rows), chosen, left_out)


def language_title(language: str) -> str:
    return LANGUAGE_TITLES.get(language, language)
