"""How a prompt and its completion fit a model's context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from subllm.engine.request import Request
from subllm.errors import ContextLengthError

if TYPE_CHECKING:
    from subllm.models.text.tokenizer import Tokenizer


def fit_to_context(tokens: int, context_length: int, *, reply: bool = True) -> int:
    """The tokens that are left for the reply. A prompt is never shortened: one that
    leaves no room for a single token (or, without `reply`, does not fit) raises
    ContextLengthError."""
    room = context_length - tokens
    missing = (1 if reply else 0) - room
    if missing > 0:
        raise ContextLengthError(
            f"this model's context is {context_length} tokens and the prompt has {tokens}; "
            f"shorten it by at least {missing}"
        )
    return room


def refuse_far_longer(tokenizer: Tokenizer, texts: Sequence[str], context_length: int) -> None:
    """Raises ContextLengthError for the texts of a prompt that are far too long together, before
    all of their tokens are made."""
    from subllm.models.text.length import far_longer  # numpy: not for routing alone

    if far_longer(tokenizer, texts, context_length) is not None:
        raise ContextLengthError(
            f"this model's context is {context_length} tokens and the prompt has many more "
            f"({sum(map(len, texts))} characters); shorten it"
        )


def bounded(request: Request, context_length: int) -> Request:
    """max_tokens is an upper bound: it is lowered to what the context leaves, and the
    reply then ends with finish_reason "length"."""
    room = fit_to_context(len(request.prompt) + len(request.begun), context_length)
    if request.params.max_tokens <= room:
        return request
    return replace(request, params=replace(request.params, max_tokens=room))
