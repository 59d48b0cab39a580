"""The option of `extract` and `recover` that names who teaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from subllm.cli.context import complete_base

if TYPE_CHECKING:
    from subllm.extraction.recovering import RecoveryJob

Teacher = Annotated[
    str,
    typer.Option(
        metavar="BASE",
        help="A larger base of the same family to learn from instead of the sub-model's own, "
        "fetched when missing: the sub-model then answers more like that one, and drafts for it "
        "better.",
        autocompletion=complete_base,
    ),
]


def taught_by(job: RecoveryJob) -> str:
    """`, from NAME`, where that is not the sub-model's own base."""
    return f", from {job.teacher.name}" if job.teacher else ""
