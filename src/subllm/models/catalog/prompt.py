"""How a model is prompted and where it stops: markers, stop tokens, context."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class FimSpec(BaseModel):
    """Fill-in-the-middle markers. `order` is the order of the parts in the prompt:
    psm is prefix-text, suffix-text, then the middle is generated; spm swaps the two."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefix: str
    suffix: str
    middle: str
    order: Literal["psm", "spm"] = "psm"
    file_separator: str | None = None  # precedes a path: "<|file_sep|>"
    repo_name: str | None = None


class PromptSpec(BaseModel):
    """What a server must know to prompt the model and to stop it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fim: FimSpec | None = None
    stop_tokens: tuple[str, ...] = ()
    context_length: int
