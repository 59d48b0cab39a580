"""Code that was cut off, up to where it is whole."""

from __future__ import annotations

import ast
import re

_TOP = re.compile(r"^(?:\}|\};|\}\);?)[ \t]*$", re.MULTILINE)
_MEMBER = re.compile(r"^(?: {2}| {4}|\t)\}[ \t]*$", re.MULTILINE)
_LAST_LINES = 40  # that a parser is tried without


def whole_part(text: str, tag: str) -> str:
    """The text up to the last definition that is whole, or "" when none is."""
    if tag == "python":
        return _whole_python(text)
    ends = [match.end() for match in _TOP.finditer(text)]
    if tag == "java" and not ends:  # one class around all: it is closed after a method
        members = [match.end() for match in _MEMBER.finditer(text)]
        return f"{text[: members[-1]]}\n}}\n" if members else ""
    return text[: ends[-1]].rstrip() + "\n" if ends else ""


def _whole_python(text: str) -> str:
    lines = text.splitlines()
    for count in range(1, min(len(lines), _LAST_LINES)):
        try:
            tree = ast.parse("\n".join(lines[:-count]))
        except (SyntaxError, ValueError, RecursionError):
            continue
        if not tree.body:
            return ""
        rest = next((line for line in lines[-count:] if line.strip()), "")
        # What ends where the text was cut may be half of it, unless something else had begun.
        kept = tree.body if rest[:1].strip() else tree.body[:-1]
        return "\n".join(lines[: kept[-1].end_lineno]) + "\n" if kept else ""
    return ""
