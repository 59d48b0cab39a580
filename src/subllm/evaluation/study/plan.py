"""The grid of a study: every model on every task, what of it is there already, and how long
the rest will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from subllm.evaluation.records import HARNESS
from subllm.evaluation.study.estimate import Clock, Load
from subllm.evaluation.study.models import Candidate
from subllm.evaluation.study.tasks import StudyTask
from subllm.report.study.records import Study
from subllm.store.manifest import canonical_json, sha256_of
from subllm.store.store import Store

Tools = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PlannedCell:
    """identity  as in `report.study_records.Cell`; None while the model is not made
    done      whether the records have it
    seconds   that it will take, 0 when done
    """

    model: Candidate
    task: StudyTask
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
    store: Store,
    models: Sequence[Candidate],
    tasks: Sequence[StudyTask],
    study: Study,
    clock: Clock,
    tools: Tools,
) -> StudyPlan:
    """study: what there is already; tools: what decides results beside model and task."""
    cells = []
    for model in models:
        for task in tasks:
            identity = None
            if model.stored:
                identity = identity_of(store.resolve(model.name), task, model, tools)
            done = identity in study.by_identity
            seconds = 0.0 if done else clock.seconds(kind_of(task), *load_of(task, model))
            cells.append(PlannedCell(model, task, identity, done, seconds))
    return StudyPlan(tuple(models), tuple(cells))


def identity_of(digest: str, task: StudyTask, model: Candidate, tools: Tools) -> str:
    """16 hex digits over all that decides a cell's scores. digest: of the model's manifest.

    The tool chain is not part of it: a new compiler alone measures nothing again.
    """
    facts = {
        "model": digest,
        "harness": HARNESS,
        "tools": dict(tools),
        **task.facts(model.ground),
    }
    return sha256_of(canonical_json(facts)).removeprefix("sha256-")[:16]


def kind_of(task: StudyTask) -> str:
    """Cells that take as long as each other for the same load."""
    return f"{task.name}/{task.language}/{task.samples > 1}"


def load_of(task: StudyTask, model: Candidate) -> tuple[Load, float]:
    """Arguments of the clock."""
    return task.load(model.ground), model.bytes_per_token
