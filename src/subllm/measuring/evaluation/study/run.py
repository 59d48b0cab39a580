"""A study from its plan to its records, cell by cell.

What is measured is in the records before the next cell begins, so a study that is stopped
goes on where it was: finished cells are not measured again, and the cell that was stopped
goes on in its own file.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from subllm.engine.bandwidth import read_bandwidth
from subllm.machine import usable_cores
from subllm.measuring.evaluation.bench import Bench
from subllm.measuring.evaluation.facts import machine_facts, now
from subllm.measuring.evaluation.measures.table import load_measures
from subllm.measuring.evaluation.study.cells import cell_of
from subllm.measuring.evaluation.study.contrasts import contrasts_of
from subllm.measuring.evaluation.study.estimate import Clock
from subllm.measuring.evaluation.study.ground import open_ground
from subllm.measuring.evaluation.study.masks import compare_masks
from subllm.measuring.evaluation.study.models import find_models, named_models
from subllm.measuring.evaluation.study.options import StudyOptions
from subllm.measuring.evaluation.study.plan import (
    PlannedCell,
    StudyPlan,
    identity_of,
    kind_of,
    load_of,
    make_plan,
)
from subllm.measuring.report.files import write_file
from subllm.measuring.report.study.records import Cell, Command, Study
from subllm.measuring.report.study.report import RECORDS, load_study, rewrite_masks, write_study
from subllm.models.catalog.loader import Catalog
from subllm.models.store.manifest import sha256_of
from subllm.progress import Progress, bar


@dataclass(frozen=True)
class Planned:
    """A plan with what its run goes on from."""

    plan: StudyPlan
    study: Study
    clock: Clock


def plan_study(bench: Bench, catalog: Catalog, options: StudyOptions, out: Path) -> Planned:
    """Reads all data and finds all models, which takes seconds; writes nothing.

    Raises UsageError and its kin for what cannot be done, before any time is spent on it.
    """
    study = load_study(out)
    grounds = [open_ground(bench.store, base) for base in options.bases]
    texts = [ground.text for ground in grounds]
    measures = [
        measure
        for task in options.tasks
        for measure in load_measures(task, options.how, bench, texts)
    ]
    find = named_models if options.models else find_models
    models = find(bench, catalog, options, grounds)
    cores = bench.threads or usable_cores()
    clock = Clock(lambda: read_bandwidth(cores), cores)
    plan = make_plan(bench, models, measures, study, clock)
    if plan.pending and _same_machine(study, bench.threads):
        for cell in plan.cells:
            if cell.done and cell.identity is not None:
                _learn(clock, cell, study.by_identity[cell.identity])
        plan = make_plan(bench, models, measures, study, clock)
    return Planned(plan, study, clock)


def run_study(planned: Planned, bench: Bench, out: Path, command: str) -> tuple[Study, list[Path]]:
    """Makes the models that are missing, compares their masks, measures what is not there yet
    and writes all files to `out`; returns them with the study.

    command: for the records, without paths. Raises LockedError while another process writes
    there, and what extraction, engines and sandbox raise; what is done by then is kept.
    """
    store, progress = bench.store, bench.progress
    with store.lock(f"study-{sha256_of(str(out.resolve()).encode())}", on_wait=progress.note):
        study = load_study(out)
        if planned.plan.pending:
            study = _with_command(study, command, bench.threads)
        for cell in planned.plan.pending:  # what is missing should not show after an hour
            cell.measure.prepare(bench)
        for model in planned.plan.models:
            if not model.stored:
                progress.note(f"making {model.name}")
                model.make()
        names = [model.name for model in planned.plan.models]
        written = compare_masks(store, names, study, out, progress)
        study = _measure(planned, study, bench, out)
        return finish(study, out, progress, also=written)


def finish(
    study: Study, out: Path, progress: Progress, also: Iterable[Path] = ()
) -> tuple[Study, list[Path]]:
    """The study with its contrasts, and all its files written; needs no models."""
    whole = Study(study.commands, study.cells, contrasts_of(study))
    return whole, [*also, *write_study(whole, out, progress)]


def report_again(out: Path, progress: Progress) -> tuple[Study, list[Path]]:
    """Every table and picture of `out` again, from its records alone."""
    written = rewrite_masks(out, progress)
    return finish(load_study(out), out, progress, also=written)


def merged(cells: Iterable[Cell], new: Cell) -> list[Cell]:
    """`cells` with `new`, which replaces one in its place that has no more problems."""
    kept = [one for one in cells if one.place != new.place or one.asked > new.asked]
    return [*kept, new]


def _measure(planned: Planned, study: Study, bench: Bench, out: Path) -> Study:
    progress, clock = bench.progress, planned.clock
    pending = list(planned.plan.pending)
    if not pending:
        return study
    with bar(progress, "study", "cells of the study", len(pending), "items"):
        for number, cell in enumerate(pending, 1):
            left = pending[number:]
            made = _measured(cell, study, bench)
            if made is not None:
                study = Study(study.commands, merged(study.cells, made), study.contrasts)
                write_file(out / RECORDS, study.to_lines())
                _learn(clock, cell, made)
                seconds = sum(clock.seconds(kind_of(c.measure), *load_of(c.measure, c.model))
                              for c in left)  # fmt: skip
                progress.note(_told(made, number, len(pending), seconds))
            progress.advance("study")
    return study


def _measured(cell: PlannedCell, study: Study, bench: Bench) -> Cell | None:
    """None where the records have it: the model was made again as it had been."""
    model = cell.model
    identity = identity_of(bench, model, cell.measure)
    if identity in study.by_identity:
        return None
    began = time.monotonic()
    result = cell.measure.run(bench, model.name)
    seconds = time.monotonic() - began
    manifest = bench.store.model(model.name)
    return cell_of(result, model, cell.measure, manifest, identity, seconds)


def _learn(clock: Clock, planned: PlannedCell, cell: Cell) -> None:
    """From cells that were measured in one go."""
    if cell.made == cell.asked * cell.samples:
        guess = clock.guess(*load_of(planned.measure, planned.model))
        clock.learn(kind_of(planned.measure), guess, cell.seconds)


def _told(cell: Cell, number: int, count: int, seconds: float) -> str:
    scores = ", ".join(
        f"{s.name} {s.value:.3f}" if s.better == "lower" else f"{s.name} {s.value:.1%}"
        for s in cell.scores
    )
    left = f"; about {max(1, round(seconds / 60))} min left" if number < count else ""
    return (
        f"[{number}/{count}] {cell.model.name}, {cell.task} {cell.language}: {scores} in "
        f"{cell.seconds:.0f} s{left}"
    )


def _with_command(study: Study, text: str, threads: int | None) -> Study:
    new = Command(command=text, created=now(), machine=machine_facts(threads))
    commands = {one.command: one for one in study.commands} | {text: new}
    return Study(commands.values(), study.cells, study.contrasts)


def _same_machine(study: Study, threads: int | None) -> bool:
    here = machine_facts(threads)
    keys = ("cpu", "threads")
    return any(all(one.machine.get(key) == here[key] for key in keys) for one in study.commands)
