"""The option of `extract` and `recover` that names who teaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from subllm.cli.context import complete_base

if TYPE_CHECKING:
    from subllm.making.extraction.recovering import RecoveryJob

Teacher = Annotated[
    str,
    typer.Option(
        metavar="BASE",
        help="A larger base of the same family, fetched when missing, to learn from what belongs "
        "at a cursor in the middle of a file; all else is learned from the sub-model's own.",
        autocompletion=complete_base,
    ),
]


def taught_by(job: RecoveryJob) -> str:
    """`, holes from NAME`, where that is not the sub-model's own base."""
    return f", holes from {job.teacher.name}" if job.teacher else ""
