"""Which smaller model may draft for the one that answers.

What it brings is estimated as Leviathan et al. 2023 do ("Fast Inference from Transformers via
Speculative Decoding", theorem 3.8): with a chance p of each drafted token to be right, n of them
give (1 - p^(n+1)) / (1 - p) tokens in the time of one step and n steps of the draft.

A draft only proposes tokens and the answering model checks each of them, so a wrong choice
costs time and never changes an answer. What speaks the same token ids is not known here: the
caller goes through the candidates and asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from subllm.languages import DENSE, GENERAL
from subllm.serving.routing.router import SubModel

_SMALLER_BASE = 0.93
"""Share of the first choices of a base that a smaller one has, both dense (the 0.5B those of the
1.5B, in greedy answers to HumanEval's prompts)."""
_UNMEASURED = 0.83
"""Likeness of a sub-model that says nothing of it: that of the 0.5B's plain Wanda at 8:16."""
_LONGEST = 8

DraftReason = Literal["language", "dense", "general", "named"]


@dataclass(frozen=True)
class Draft:
    """`reason`: of the request's language, the dense or general model of a smaller base, or
    named by whoever asked."""

    model: str
    reason: DraftReason


def drafts_for(target: SubModel, language: str | None, models: Sequence[SubModel]) -> list[Draft]:
    """The models that may draft for `target`, best first; none where it is no dense model.

    They are of a smaller base of its family: the sub-model of `language`, dense and general
    ones, in the order of what they are estimated to bring; of several that bring the same the
    one of the language, then dense ones. Never a sub-model of another language, nor one of the same
    base: at int8 it reads two thirds of the bytes, with which it would have to guess nearly
    every token right to gain.
    """
    if target.language != DENSE:
        return []
    reasons: dict[str, DraftReason] = {DENSE: "dense", GENERAL: "general"}
    if language is not None and language not in reasons:
        reasons = {language: "language", **reasons}
    order = list(reasons)
    fitting = [
        model
        for model in models
        if model.language in reasons
        and model.parameters < target.parameters
        and not unfit(target, model)
    ]
    fitting.sort(
        key=lambda model: (
            -round(gain(target, model), 3),
            order.index(model.language),
            bool(model.tag),
            model.name,
        )
    )
    return [Draft(model.name, reasons[model.language]) for model in fitting]


def gain(target: SubModel, draft: SubModel) -> float:
    """How many times as fast as alone `target` is estimated to answer."""
    like = 1.0 if draft.language == DENSE else draft.likeness
    chance = _SMALLER_BASE * (_UNMEASURED if like is None else like)
    step = draft.bytes_read / target.bytes_read
    return max(
        (1 - chance ** (n + 1)) / (1 - chance) / (1 + n * step) for n in range(1, _LONGEST + 1)
    )


def unfit(target: SubModel, draft: SubModel) -> str | None:
    """Why `draft` may not draft for `target`, whoever names it; None where it may, as far as
    names and sizes tell."""
    if draft.family != target.family:
        return f"it is of another family than {target.name}, which answers"
    if draft.bytes_read >= target.bytes_read:
        return f"it is not smaller than {target.name}, which answers"
    return None
