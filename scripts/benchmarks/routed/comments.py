"""Whether a piece of a file shows code: what a comment says seldom tells a language."""

from __future__ import annotations

import re

LEAST = 20  # characters of code, without white space, that a piece with code has

_HASHED = frozenset(("python", "shell", "ruby", "perl", "r", "yaml", "elixir", "makefile"))
_DASHED = frozenset(("haskell", "lua", "sql"))
_DOCSTRING = re.compile(r"(\"\"\"|''')(?:.|\n)*?(\1|\Z)")
_HASH = re.compile(r"(^|\s)#.*$", re.MULTILINE)
_DASHES = re.compile(r"--.*$", re.MULTILINE)
_BLOCK = re.compile(r"/\*(?:.|\n)*?(?:\*/|\Z)")
_SLASHES = re.compile(r"(^|[\s;,{}()])//.*$", re.MULTILINE)
_INSIDE = re.compile(r"\s*(\*|$)")  # a line in the middle of a block comment


def shows_code(text: str, language: str) -> bool:
    """Whether there is enough of it outside comments, those cut off at either end included."""
    return len(re.sub(r"\s", "", _without_comments(text, language))) >= LEAST


def _without_comments(text: str, language: str) -> str:
    if language in _HASHED:
        return _HASH.sub(" ", _DOCSTRING.sub(" ", text))
    if language in _DASHED:
        return _DASHES.sub(" ", text)
    begins, ends = text.find("/*"), text.find("*/")
    if ends >= 0 and not 0 <= begins < ends:
        text = text[ends + 2 :]
    text = _SLASHES.sub(" ", _BLOCK.sub(" ", text))
    lines = text.split("\n")
    if all(_INSIDE.match(line) for line in lines[1:]):
        return ""
    return "\n".join(line for line in lines if not re.match(r"\s*\*( |$)", line))
