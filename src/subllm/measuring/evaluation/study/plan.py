"""The grid of a study: every model on every task, what of it is there already, and how long
the rest will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from subllm.measuring.evaluation.bench import Bench
from subllm.measuring.evaluation.measures.measure import Load, Measure
from subllm.measuring.evaluation.records import HARNESS
from subllm.measuring.evaluation.study.estimate import Clock
from subllm.measuring.evaluation.study.models import Candidate
from subllm.measuring.report.study.records import Study
from subllm.models.store.manifest import canonical_json, sha256_of


@dataclass(frozen=True)
class PlannedCell:
    """identity  as in `report.study.records.Cell`; None while the model is not made
    done      whether the records have it
    seconds   that it will take, 0 when done
    """

    model: Candidate
    measure: Measure
    identity: str | None
    done: bool
    seconds: float


@dataclass(frozen=True)
class StudyPlan:
    """models in the order in which they are made and measured."""

    models: tuple[Candidate, ...]
    cells: tuple[PlannedCell, ...]

    @property
    def seconds(self) -> float:
        """Of everything that is not there yet."""
        return sum(model.seconds for model in self.models) + sum(c.seconds for c in self.cells)

    @property
    def pending(self) -> tuple[PlannedCell, ...]:
        return tuple(cell for cell in self.cells if not cell.done)


def make_plan(
    bench: Bench,
    models: Sequence[Candidate],
    measures: Sequence[Measure],
    study: Study,
    clock: Clock,
) -> StudyPlan:
    """study: what there is already."""
    cells = []
    for model in models:
        for measure in measures:
            identity = identity_of(bench, model, measure) if model.stored else None
            done = identity in study.by_identity
            seconds = 0.0 if done else clock.seconds(kind_of(measure), *load_of(measure, model))
            cells.append(PlannedCell(model, measure, identity, done, seconds))
    return StudyPlan(tuple(models), tuple(cells))


def identity_of(bench: Bench, model: Candidate, measure: Measure) -> str:
    """16 hex digits over all that decides a cell's scores, of a model that is stored.

    The tool chain is not part of it: a new compiler alone measures nothing again.
    """
    facts = {
        "model": bench.store.resolve(model.name),
        "harness": HARNESS,
        "tools": bench.engines.tools(),
        **measure.facts(bench.store, model.ground.text),
    }
    return sha256_of(canonical_json(facts)).removeprefix("sha256-")[:16]


def kind_of(measure: Measure) -> str:
    """Cells that take as long as each other for the same load."""
    return f"{measure.task}/{measure.language}/{measure.samples > 1}"


def load_of(measure: Measure, model: Candidate) -> tuple[Load, float]:
    """Arguments of the clock."""
    return measure.load(model.ground.text), model.bytes_per_token
