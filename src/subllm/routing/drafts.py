"""Which smaller model may draft for the one that answers.

A draft only proposes tokens and the answering model checks each of them, so a wrong choice
costs time and never changes an answer. What speaks the same token ids is not known here: the
caller goes through the candidates and asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from subllm.routing.languages import DENSE, GENERAL
from subllm.routing.router import SubModel

DraftReason = Literal["language", "dense", "general", "named"]


@dataclass(frozen=True)
class Draft:
    """`reason`: of the request's language, the dense or general model of a smaller base, or
    named by whoever asked."""

    model: str
    reason: DraftReason


def drafts_for(target: SubModel, language: str | None, models: Sequence[SubModel]) -> list[Draft]:
    """The models that may draft for `target`, best first; none where it is no dense model.

    They are of a smaller base of its family: the sub-model of `language`, then dense ones,
    then general ones; of several the one that is read fastest. Never a sub-model of another
    language, nor one of the same base: at int8 it reads two thirds of the bytes, with
    which it would have to guess nearly every token right to gain.
    """
    if target.language != DENSE:
        return []
    smaller = sorted(
        (
            model
            for model in models
            if model.parameters < target.parameters and not unfit(target, model)
        ),
        key=lambda model: (model.bytes_read, bool(model.tag), model.name),
    )
    wanted: list[tuple[str | None, DraftReason]] = [
        (None if language in (DENSE, GENERAL) else language, "language"),
        (DENSE, "dense"),
        (GENERAL, "general"),
    ]
    return [
        Draft(model.name, reason)
        for language, reason in wanted
        for model in smaller
        if model.language == language
    ]


def unfit(target: SubModel, draft: SubModel) -> str | None:
    """Why `draft` may not draft for `target`, whoever names it; None where it may, as far as
    names and sizes tell."""
    if draft.family != target.family:
        return f"it is of another family than {target.name}, which answers"
    if draft.bytes_read >= target.bytes_read:
        return f"it is not smaller than {target.name}, which answers"
    return None
