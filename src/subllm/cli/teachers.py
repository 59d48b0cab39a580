"""Who teaches, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subllm.making.extraction.recovering import RecoveryJob


def taught_by(job: RecoveryJob) -> str:
    """`, holes from NAME`, where that is not the sub-model's own base."""
    return f", holes from {job.teacher.name}" if job.teacher else ""
