"""What the detector looks at: which tokens a text has, which of them stand side by side, how it is
indented.

Words that the model does not know count by their shape (`camelCase`, `snake_case`) and by what
they are made of (`…_t`, `Exception`), so that a project's own names tell as much as another's.
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
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")  # of camelCase and snake_case
_AFFIX = 3  # letters


def split(text: str) -> list[str]:
    found: list[str] = _TOKEN.findall(text)
    return found


def tokens(text: str, known: Container[Any]) -> tuple[list[str], dict[str, str]]:
    """The tokens of `text`, of words that are not `known` their shapes; and what became of each
    token that it has."""
    found = []
    seen: dict[str, str] = {}
    for token in split(text):
        kept = seen.get(token)
        if kept is None:
            kept = seen[token] = _of(token, known)
        found.append(kept)
    return found, seen


def features(text: str, known: Container[Any]) -> set[Feature]:
    """The tokens of `text` and its pairs of neighbours, parts of its words that are not `known`,
    and its indentations, each once."""
    found, seen = tokens(text, known)
    features: set[Feature] = {*found, *pairwise(found)}
    for token, kept in seen.items():
        if kept == INDENTED:
            features.add(indentation(token[1:]))
        elif kept != token and kept not in (LINE, NUMBER):
            features.update(parts(token))
    return features


def indentation(white: str) -> str:
    """`⇥t` where it begins with a tab, else by its width: `⇥1` to `⇥9`."""
    return "⇥t" if white[0] == "\t" else f"⇥{min(len(white), 9)}"


def parts(word: str) -> list[str]:
    """Of `parseHTML_v2`: `par…` and `…_v2`, `~parse`, `~HTML`, `^parse`, `$2`."""
    if not _AFFIX < len(word) <= _LONGEST or not word.isascii():
        return []
    found = [f"{word[:_AFFIX]}…", f"…{word[-_AFFIX:]}"]
    made_of = _PART.findall(word)
    if len(made_of) > 1:
        found += (f"~{part}" for part in made_of if len(part) > 1)
        found += (f"^{made_of[0]}", f"${made_of[-1]}")
    return found


def is_part(feature: Feature) -> bool:
    """Whether `feature` is one of `parts` or an indentation, none of the tokens."""
    return (
        isinstance(feature, str)
        and len(feature) > 1
        and ("…" in feature or feature[0] == "⇥" or (feature[0] in "~^$" and feature[1:].isalnum()))
    )


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
