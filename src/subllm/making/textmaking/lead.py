"""What stands before a function's body: its comments, its signature, its docstring."""

from __future__ import annotations

import ast
import re

from subllm.models.text.lexing import events

_COMMENT = re.compile(r"\s*(?:/\*.*?\*/|(?://[^\n]*\n)+)", re.DOTALL)
_LEAST = 2  # lines of a body; with fewer there is little to write


def lead_of(function: str, tag: str) -> str:
    """The text up to the body of a function that begins at the left margin; "" for one that has
    hardly a body, or that is not understood."""
    end = _python_body(function) if tag == "python" else _brace_body(function, tag)
    lead, body = function[:end], function[end:]
    return lead if len([line for line in body.splitlines() if line.strip()]) >= _LEAST else ""


def _python_body(function: str) -> int:
    """Where the first statement after the docstring begins."""
    try:
        tree = ast.parse(function)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0
    found = tree.body[0] if tree.body else None
    if not isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef):
        return 0
    first = found.body[0]
    lines = (first.end_lineno or 0) if ast.get_docstring(found) else first.lineno - 1
    return sum(len(text) for text in function.splitlines(keepends=True)[:lines])


def _brace_body(function: str, tag: str) -> int:
    """Behind the line with the brace that opens the body."""
    comment = _COMMENT.match(function)
    for event in events(function, tag, comment.end() if comment else 0):
        if event.kind == "open":
            end = function.find("\n", event.at) + 1
            return end if function[event.at + 1 : end].strip() == "" else 0
    return 0
