"""A model that goes in circles."""

from __future__ import annotations

REPEATS, LOOP = 6, 240
_PROBE = 40  # characters


def looping(text: str) -> bool:
    """Whether the text ends in a piece that repeats, REPEATS times and LOOP characters at
    least. A small or pruned model does not find out of that by itself."""
    size = len(text)
    before = text.rfind(text[-_PROBE:], 0, size - 1)
    if before < 0 or size < LOOP:
        return False
    period = size - _PROBE - before
    count = max(REPEATS, -(-LOOP // period))
    return size >= period * count and text.endswith(text[-period:] * count)
