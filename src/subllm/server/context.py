"""How a prompt and its completion fit a model's context."""

from __future__ import annotations

from dataclasses import replace

from subllm.errors import ContextLengthError
from subllm.runtime.request import Request


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


def bounded(request: Request, context_length: int) -> Request:
    """max_tokens is an upper bound: it is lowered to what the context leaves, and the
    reply then ends with finish_reason "length"."""
    room = fit_to_context(len(request.prompt), context_length)
    if request.params.max_tokens <= room:
        return request
    return replace(request, params=replace(request.params, max_tokens=room))
