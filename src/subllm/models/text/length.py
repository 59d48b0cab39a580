"""Whether a text is far too long, without making all of its tokens."""

from __future__ import annotations

from collections.abc import Iterable

from subllm.models.text.tokenizer import Tokenizer

PIECE = 16_384
"""Characters that are encoded at once."""

SHORT = 4
"""Characters a token: a text of so many for every token that may be is encoded as it is."""

_SLACK = 64
"""Tokens of a piece that may owe to where it was cut, and to where texts were joined."""


def far_longer(tokenizer: Tokenizer, texts: Iterable[str], limit: int) -> int | None:
    """Tokens counted in `texts` when there are more than `limit` for sure, None where they may
    fit. A text much longer than that costs the time and memory of what is counted, a piece at a
    time."""
    text = "\n".join(texts)
    if len(text) <= SHORT * limit:
        return None
    count = 0
    for start in range(0, len(text), PIECE):
        found = len(tokenizer.encode(text[start : start + PIECE], bos=False))
        count += max(0, found - _SLACK)
        if count > limit:
            return count
    return None
