"""Words of a text, to compare it with others by."""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Za-z_]\w*|\d+")


def words_of(text: str) -> list[str]:
    """Names and numbers in lower case, punctuation dropped."""
    return [word.lower() for word in _WORD.findall(text)]


def grams(words: list[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}
