"""What `subllm study` shows: the plan before, the tables after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subllm.cli import console

if TYPE_CHECKING:
    from subllm.measuring.evaluation.study.plan import StudyPlan
    from subllm.measuring.report.study.records import Study


def announce(plan: StudyPlan) -> None:
    """One line before the work begins."""
    missing = sum(not model.stored for model in plan.models)
    told = f"{len(plan.models)} models ({missing} to be made), {len(plan.cells)} cells "
    told += f"({len(plan.cells) - len(plan.pending)} done)"
    console.note(f"{told}: about {_about(plan.seconds)}" if plan.seconds else told)


def show_plan(plan: StudyPlan, json_output: bool) -> None:
    """A table of the models, one of the tasks, and what it comes to."""
    if json_output:
        console.emit_json(_plan_document(plan))
        return
    rows = []
    for model in plan.models:
        own = [cell for cell in plan.cells if cell.model is model]
        seconds = model.seconds + sum(cell.seconds for cell in own)
        rows.append(
            [
                model.name,
                "stored" if model.stored else f"make, {_about(model.seconds)}",
                f"{sum(cell.done for cell in own)}/{len(own)}",
                _about(seconds),
            ]
        )
    console.table(["MODEL", "WEIGHTS", ("DONE", "right"), ("ABOUT", "right")], rows)
    console.result("")
    rows = []
    for task in dict.fromkeys((c.measure.task, c.measure.language) for c in plan.cells):
        own = [c for c in plan.cells if (c.measure.task, c.measure.language) == task]
        rows.append(
            [
                *task,
                f"{own[0].measure.asked:,}",
                str(own[0].measure.samples),
                f"{sum(cell.done for cell in own)}/{len(own)}",
                _about(sum(cell.seconds for cell in own)),
            ]
        )
    columns: list[str | tuple[str, console.Align]] = ["TASK", "LANGUAGE", ("PROBLEMS", "right")]
    columns += [("SAMPLES", "right"), ("DONE", "right"), ("ABOUT", "right")]
    console.table(columns, rows)
    console.result("")
    console.result(f"{len(plan.pending)} cells to measure, about {_about(plan.seconds)} in all")


def _plan_document(plan: StudyPlan) -> dict[str, Any]:
    return {
        "seconds": round(plan.seconds, 1),
        "models": [
            {
                "name": model.name,
                "language": model.language,
                "method": model.method,
                "pattern": str(model.pattern),
                "stored": model.stored,
                "seconds": round(model.seconds, 1),
            }
            for model in plan.models
        ],
        "cells": [
            {
                "model": cell.model.name,
                "task": cell.measure.task,
                "language": cell.measure.language,
                "problems": cell.measure.asked,
                "samples": cell.measure.samples,
                "identity": cell.identity,
                "done": cell.done,
                "seconds": round(cell.seconds, 1),
            }
            for cell in plan.cells
        ],
    }


def show(study: Study, files: Sequence[Path], json_output: bool) -> None:
    """Every table of scores with what each language's own sub-model is worth, and the files
    that were written."""
    if json_output:
        console.emit_json(_document(study, files))
        return
    from subllm.measuring.report.study.boards import boards
    from subllm.measuring.report.study.tables import own_language_table, scores_table

    tables = []
    for recipe in study.recipes:
        for board in boards(study, recipe):
            own = own_language_table(study, board)
            tables += [scores_table(board), *([own] if own else [])]
    console.result("\n".join(table.plain() for table in tables), newline=False)
    for file in files:
        console.note(f"wrote {file}")


def _document(study: Study, files: Sequence[Path]) -> dict[str, Any]:
    return {
        "commands": [command.model_dump(mode="json") for command in study.commands],
        "cells": [cell.model_dump(mode="json") for cell in study.cells],
        "contrasts": [contrast.model_dump(mode="json") for contrast in study.contrasts],
        "files": [str(file) for file in files],
    }


def _about(seconds: float) -> str:
    return console.duration(round(seconds)) if seconds >= 10 else f"{seconds:.0f} s"
