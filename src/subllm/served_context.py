"""How long a prompt with its completion may be, in tokens: what is served, shown and refused."""

from __future__ import annotations

DEFAULT_CONTEXT = 8192
"""Where no length is set: models that were trained for more are served with this much."""


def served_context(longest: int, limit: int | None = None) -> int:
    """Of a model trained for `longest` tokens; `limit` is the setting `context_length`."""
    return min(longest, DEFAULT_CONTEXT if limit is None else limit)
