"""What the detector looks at: which tokens a text has, and which of them stand side by side.

Words that the model does not know count by their shape (`camelCase`, `snake_case`), so that a
project's own names tell as much as another's.
"""

from __future__ import annotations

import re
from collections.abc import Container
from itertools import pairwise
from typing import Any

LINE, INDENTED = "⏎", "⏎⇥"  # where a line begins
NUMBER = "‹0›"
Feature = str | tuple[str, str]

_TOKEN = re.compile(
    r"[^\W\d]\w*"  # names, keywords, words of comments
    r"|\d\w*"
    r"|\n[ \t]*"
    r'|"""|\'\'\'|[(){}\[\];,\'"`]'
    r"|[^\w\s(){}\[\];,'\"`]{1,3}"  # operators
)
_LONGEST = 32  # a longer name is none that the model knows


def split(text: str) -> list[str]:
    found: list[str] = _TOKEN.findall(text)
    return found


def tokens(text: str, known: Container[Any]) -> list[str]:
    """Of words that are not `known`, their shapes."""
    found = []
    seen: dict[str, str] = {}
    for token in split(text):
        kept = seen.get(token)
        if kept is None:
            kept = seen[token] = _of(token, known)
        found.append(kept)
    return found


def features(text: str, known: Container[Any]) -> set[Feature]:
    """The tokens of `text` and its pairs of neighbours, each once."""
    found = tokens(text, known)
    return {*found, *pairwise(found)}


def _of(token: str, known: Container[Any]) -> str:
    first = token[0]
    if first == "\n":
        return LINE if len(token) == 1 else INDENTED
    if first.isdigit():
        return NUMBER
    if token in known or not (first.isalpha() or first == "_"):
        return token
    return shape(token)


def shape(word: str) -> str:
    """`‹a›`, `‹A›`, `‹aA›`, `‹Aa›`, `‹a_a›`, `‹A_A›`, ...; ‹å› for letters outside ASCII."""
    if len(word) > _LONGEST:
        return "‹long›"
    if not word.isascii():
        return "‹å›"
    lower, upper = word.islower(), word.isupper()
    if lower or upper:
        one = "a" if lower else "A"
        return f"‹{one}_{one}›" if "_" in word.strip("_") else f"‹{one}›"
    if "_" in word:
        return "‹A_a›"
    return "‹Aa›" if word[0].isupper() else "‹aA›"
