"""What a study leaves behind: one line for each measured cell, from which its tables and
pictures are made.

A file of it is JSON lines: a `StudyHeader`, the `Command` lines that made it, a `Cell` for
each model on each task, and `Contrast` lines that compare two cells problem by problem.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from subllm.errors import UsageError
from subllm.measuring.report.records import Record, parse_lines, to_lines, validated

DENSE = "dense"
ROW_ORDER = (DENSE, "general", "python", "java", "cpp", "javascript")
Better = Literal["higher", "lower"]


class StudyHeader(Record):
    record: Literal["study"]
    version: Literal[1]


class Command(Record):
    """A command that added cells, with the machine's facts. It names files, not paths."""

    record: Literal["command"] = "command"
    command: str
    created: str
    machine: dict[str, Any]


class Model(Record):
    """A model of the study. language: as in its name; "dense" for the unpruned base.

    calibration, sequences, length   source, and how much of it; "", 0, 0 where none
    domain    that the calibration is from: code, math, csr, translation, generic, "" if none
              or not known
    recovery  budget of what it learned from the dense base since, as 30m or 120ktok; "" for none
    """

    name: str
    digest: str
    language: str
    base: str
    base_digest: str
    base_source: str
    method: str
    pattern: str
    values: str
    head: str
    density: float
    calibration: str = ""
    sequences: int = 0
    length: int = 0
    domain: str = ""
    recovery: str = ""


@dataclass(frozen=True, order=True)
class Recipe:
    """What the sub-models of one table have in common."""

    base: str
    base_digest: str
    method: str
    pattern: str
    values: str
    head: str
    sequences: int
    length: int
    recovery: str = ""

    @property
    def title(self) -> str:
        calibrated = f", {self.sequences} x {self.length} tokens" if self.sequences else ""
        recovered = f", recovered for {self.recovery}" if self.recovery else ""
        return (
            f"{self.base}, {self.method} {self.pattern}, {self.values}, head {self.head}"
            f"{calibrated}{recovered}"
        )


class Data(Record):
    """source: file name or hub address; digest and rows: of all of it."""

    source: str
    digest: str
    rows: int


class CellSampling(Record):
    """How completions were asked for and sampled; temperature 0 is greedy."""

    prompt: str
    temperature: float
    top_p: float
    max_tokens: int
    seed: int


class Score(Record):
    """name: "pass@1", "perplexity", "acc", ...; low, high: 95 % interval over problems.

    All but perplexity are shares of 1.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    k: int | None = None

    @property
    def better(self) -> Better:
        return "lower" if self.name == "perplexity" else "higher"


class Solutions(Record):
    """The data's own solutions: how many ran and passed, and the problems where they do not."""

    run: int
    passed: int
    failing: tuple[str, ...]


class Cell(Record):
    """One model on one task.

    identity   16 hex digits over all that decides the scores, digests first
    language   of the task; of a domain's task, the domain (math, csr, translation)
    domain     code, text (perplexity, agreement) or that domain
    drawing    how completions were sampled; None where none are
    asked      problems, questions or sequences; samples: completions of each problem
    passed     problem -> how many of its samples pass, where any does (pass@k only)
    solutions  those of the data itself; None where it has none
    tools      engine's backend, tool chain, harness, where they decide
    made       completions and scores that were made for this; seconds: that it took
    """

    record: Literal["cell"] = "cell"
    identity: str
    model: Model
    task: str
    language: str
    domain: str
    data: Data
    drawing: CellSampling | None = None
    asked: int
    samples: int = 1
    scores: tuple[Score, ...]
    passed: dict[str, int] = Field(default_factory=dict)
    solutions: Solutions | None = None
    notes: tuple[str, ...] = ()
    harness: int
    tools: dict[str, str] = Field(default_factory=dict)
    made: int = 0
    seconds: float = 0.0
    created: str = ""

    def score(self, name: str) -> Score | None:
        return next((score for score in self.scores if score.name == name), None)

    @property
    def place(self) -> tuple[Any, ...]:
        """Where in a table this is, whatever the number of problems and samples: of two
        cells in one place, the newer holds."""
        model = self.model.model_dump(exclude={"name", "digest", "density", "domain"})
        sampling = self.drawing.model_dump() if self.drawing else {}
        return (*model.values(), self.task, self.language, *sampling.values())


class Contrast(Record):
    """Cell `a` against cell `b` (identities), over the same problems.

    retention   a / b, b being the dense base
    margin      a - b, a being the sub-model of the task's language
    """

    record: Literal["contrast"] = "contrast"
    kind: Literal["retention", "margin"]
    a: str
    b: str
    score: str
    value: float
    low: float | None = None
    high: float | None = None


class Study:
    """All lines of a study, in the order of tables."""

    def __init__(
        self,
        commands: Iterable[Command] = (),
        cells: Iterable[Cell] = (),
        contrasts: Iterable[Contrast] = (),
    ) -> None:
        self.commands = tuple(commands)
        self.cells = tuple(sorted(cells, key=_order))
        self.contrasts = tuple(contrasts)

    @cached_property
    def by_identity(self) -> dict[str, Cell]:
        return {cell.identity: cell for cell in self.cells}

    @cached_property
    def recipes(self) -> tuple[Recipe, ...]:
        """Of all sub-models."""
        found = {recipe_of(cell.model) for cell in self.cells if cell.model.language != DENSE}
        return tuple(sorted(found))

    def label(self, model: Model) -> str:
        """The model's language; with its calibration where the recipe has several of that
        language."""
        if len(self._calibrations[recipe_of(model), model.language]) < 2:
            return model.language
        return f"{model.language} ({model.calibration})"

    @cached_property
    def _calibrations(self) -> dict[tuple[Recipe, str], set[str]]:
        found: dict[tuple[Recipe, str], set[str]] = {}
        for cell in self.cells:
            key = (recipe_of(cell.model), cell.model.language)
            found.setdefault(key, set()).add(cell.model.calibration)
        return found

    def of(self, recipe: Recipe) -> list[Cell]:
        """The cells of the recipe's sub-models and of their dense base."""
        return [cell for cell in self.cells if _belongs(cell.model, recipe)]

    def contrast(self, kind: str, a: Cell, b: Cell | None, score: str) -> Contrast | None:
        if b is None:
            return None
        return self._contrasts.get((kind, a.identity, b.identity, score))

    @cached_property
    def _contrasts(self) -> dict[tuple[str, str, str, str], Contrast]:
        return {(one.kind, one.a, one.b, one.score): one for one in self.contrasts}

    def to_lines(self) -> str:
        """The file of this study; `read_study` reads it."""
        return to_lines(
            (StudyHeader(record="study", version=1), *self.commands, *self.cells, *self.contrasts)
        )


def recipe_of(model: Model) -> Recipe:
    return Recipe(
        model.base, model.base_digest, model.method, model.pattern, model.values, model.head,
        model.sequences, model.length, model.recovery,
    )  # fmt: skip


def _belongs(model: Model, recipe: Recipe) -> bool:
    if model.language == DENSE:
        own = (model.base, model.base_digest, model.values, model.head)
        return own == (recipe.base, recipe.base_digest, recipe.values, recipe.head)
    return recipe_of(model) == recipe


def row_rank(label: str) -> tuple[int, str]:
    """Dense first, then general, the languages as the paper has them, the others by name."""
    known = ROW_ORDER.index(label) if label in ROW_ORDER else len(ROW_ORDER)
    return known, label


def _order(cell: Cell) -> tuple[Any, ...]:
    model = cell.model
    recipe = (model.base, model.method, model.pattern, model.values, model.head)
    sampling = cell.drawing.model_dump().values() if cell.drawing else ()
    return (
        *(model.base, row_rank(model.language), model.calibration, recipe, cell.task),
        *(row_rank(cell.language), tuple(map(str, sampling)), cell.asked, cell.identity),
    )


def read_study(lines: str, *, where: str = "records") -> Study:
    """Raises UsageError naming the line that is malformed; `where` is the file's name."""
    rows = parse_lines(lines, where)
    if not rows:
        raise UsageError(f"{where} is empty; run 'subllm study --out DIR' to make it")
    validated(StudyHeader, rows[0], f"{where}:1")
    commands: list[Command] = []
    cells: list[Cell] = []
    contrasts: list[Contrast] = []
    for number, row in enumerate(rows[1:], 2):
        place = f"{where}:{number}"
        kind = row.get("record") if isinstance(row, dict) else None
        if kind == "command":
            commands.append(validated(Command, row, place))
        elif kind == "contrast":
            contrasts.append(validated(Contrast, row, place))
        else:
            cells.append(validated(Cell, row, place))
    return Study(commands, cells, contrasts)
