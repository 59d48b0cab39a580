"""Finds functions in source code by their lines: good enough to start a text at one."""

from __future__ import annotations

import re

_WORD = r"[A-Za-z_$][\w$]*"
_NOT_A_NAME = r"(?!(?:if|for|while|switch|catch|return|else|new|throw|do|with|synchronized)\b)"
_PYTHON = re.compile(r"\s*(?:async\s+)?def\s+\w+")
_JAVASCRIPT = re.compile(
    rf"\s*(?:export\s+(?:default\s+)?)?(?:async\s+)?function\b"
    rf"|\s*(?:export\s+)?(?:const|let|var)\s+{_WORD}\s*(?::[^=]+)?=\s*(?:async\s+)?"
    rf"(?:function\b|\([^;]*\)\s*(?::[^=]+)?=>|{_WORD}\s*=>)"
    rf"|\s*(?:(?:public|private|protected|static|async|get|set)\s+)*\*?{_NOT_A_NAME}#?{_WORD}"
    rf"\s*\([^;]*\)\s*(?::[^=;]+)?\{{\s*$"
)
_JAVA = re.compile(
    rf"\s*(?:(?:public|protected|private|static|final|abstract|synchronized|default)\s+)*"
    rf"(?:<[^>]+>\s+)?{_NOT_A_NAME}[\w.]+(?:<[^()]*>)?(?:\[\])*\s+{_WORD}\s*\([^;=]*$"
)
_CPP = re.compile(
    rf"\s*(?:(?:static|inline|constexpr|virtual|explicit|extern|const)\s+)*"
    rf"{_NOT_A_NAME}[\w:]+(?:<[^()]*>)?[\s*&]+{_NOT_A_NAME}[\w:~]+\s*\([^;]*$"
)
_ANY = re.compile(
    rf"\s*(?:(?:pub|public|private|export|async)\s+)*(?:fn|func|fun|def|sub)\s+{_WORD}"
)
_STARTS = {
    "python": _PYTHON,
    "javascript": _JAVASCRIPT,
    "typescript": _JAVASCRIPT,
    "java": _JAVA,
    "csharp": _JAVA,
    "cpp": _CPP,
    "c": _CPP,
}
# What belongs to the function below it: comments, decorators, annotations, templates.
_LEAD = re.compile(r"\s*(?:#(?!include|define|if|endif|pragma)|//|/\*|\*|@|template\s*<)")
_END = re.compile(r"\s*(?:\}|end\b)")
_CLOSING = (")", "]", "{")  # the rest of a signature that spans lines


def functions(code: str, tag: str) -> list[str]:
    """The functions of `code` in its order, each with what leads it, moved to the left
    margin. Functions inside of functions are part of those."""
    start = _STARTS.get(tag, _ANY)
    lines = code.splitlines()
    found = []
    index = 0
    while index < len(lines):
        if not start.match(lines[index]):
            index += 1
            continue
        end = _end(lines, index, braces=tag != "python")
        if end - index < 2:  # a declaration, or too short to calibrate on
            index = end
            continue
        first = index
        while first and _indent(lines[first - 1]) == _indent(lines[index]):
            if not _LEAD.match(lines[first - 1]):
                break
            first -= 1
        found.append(_dedent(lines[first:end], _indent(lines[index])))
        index = end
    return found


def _end(lines: list[str], start: int, braces: bool) -> int:
    """One past the last line of what starts at `start`, told by indentation."""
    indent = _indent(lines[start])
    last = start
    for index in range(start + 1, len(lines)):
        line = lines[index]
        if not line.strip():
            continue
        if _indent(line) <= indent:
            if braces and _END.match(line):
                return index + 1
            if not line.lstrip().startswith(_CLOSING):
                break
        last = index
    return last + 1


def _indent(line: str) -> int:
    """Columns of white space; a comment's ` * text` counts as where the comment began."""
    return _leading(line) - (1 if line.lstrip().startswith("*") and line[0].isspace() else 0)


def _leading(line: str) -> int:
    expanded = line.expandtabs(4)
    return len(expanded) - len(expanded.lstrip())


def _dedent(lines: list[str], indent: int) -> str:
    if indent:
        lines = [line.expandtabs(4)[min(indent, _leading(line)) :] for line in lines]
    return "\n".join(lines) + "\n"
