"""Brackets and lines of source code, outside of strings and comments.

Not a parser: just enough to see where a function ends while it is being written. Text that
stops in the middle of a string or comment counts as inside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

_LINE = r"(?P<line>\n)"
_C_COMMENT = r"//[^\n]*|/\*.*?(?:\*/|\Z)"
_DOUBLE = r'"(?:\\.|[^"\\\n])*"?'
_SINGLE = r"'(?:\\.|[^'\\\n])*'?"
_LONG = r'"""(?:\\.|[^\\])*?(?:"""|\Z)'
_BRACES = r"(?P<open>\{)|(?P<close>\})"

_TOKENS: dict[str, re.Pattern[str]] = {
    "python": re.compile(
        rf"#[^\n]*|{_LONG}|'''(?:\\.|[^\\])*?(?:'''|\Z)|{_DOUBLE}|{_SINGLE}|\\\n"
        rf"|(?P<open>[(\[{{])|(?P<close>[)\]}}])|{_LINE}",
        re.DOTALL,
    ),
    "java": re.compile(rf"{_C_COMMENT}|{_LONG}|{_DOUBLE}|{_SINGLE}|{_BRACES}|{_LINE}", re.DOTALL),
    # A quote between digits separates them: 1'000.
    "cpp": re.compile(
        rf'{_C_COMMENT}|R"(?P<tag>[^\s()\\]*)\(.*?(?:\)(?P=tag)"|\Z)|{_DOUBLE}'
        rf"|(?<![0-9A-Fa-f]){_SINGLE}|{_BRACES}|{_LINE}",
        re.DOTALL,
    ),
    # A template in a template opens and closes braces in pairs, so it need not be followed.
    "javascript": re.compile(
        rf"{_C_COMMENT}|{_DOUBLE}|{_SINGLE}|`(?:\\.|[^`\\])*(?:`|\Z)|(?P<slash>/)"
        rf"|{_BRACES}|{_LINE}",
        re.DOTALL,
    ),
}
_REGEX = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\\n])*\]?|[^/\\\[\n])+/")
# What a division cannot follow, so that "/" begins a regular expression.
_BEFORE_REGEX = re.compile(r"(?:^|[(,=:\[!&|?{};+\-*%<>~^\n]|\b(?:return|typeof|case|in|of))\s*\Z")
_LOOK_BACK = 16


class Event(NamedTuple):
    """at: index of the bracket, or of the first character of the line."""

    kind: Literal["open", "close", "line"]
    at: int


def events(text: str, language: str, start: int = 0) -> Iterator[Event]:
    """What there is from `start` on, which must not be inside a string or comment.

    Python counts all brackets, the other languages braces only. A line that begins inside
    a string, a comment or (in Python) after a backslash is no line.
    """
    pattern = _TOKENS[language]
    at = start
    while (match := pattern.search(text, at)) is not None:
        at = match.end()
        kind = match.lastgroup
        if kind == "open":
            yield Event("open", match.start())
        elif kind == "close":
            yield Event("close", match.start())
        elif kind == "line":
            yield Event("line", at)
        elif kind == "slash":
            before = text[max(0, match.start() - _LOOK_BACK) : match.start()]
            literal = _REGEX.match(text, match.start())
            if literal is not None and _BEFORE_REGEX.search(before):
                at = literal.end()


def depth(text: str, language: str) -> int:
    """Brackets that the text opens and does not close."""
    kinds = [event.kind for event in events(text, language)]
    return kinds.count("open") - kinds.count("close")
