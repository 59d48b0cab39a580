"""Language hints that a request carries beside its code: paths and fences.

Whoever sends a request chooses the text, and a pattern holds the interpreter while it runs: what
may repeat is bounded, and of a long text its beginning and its end are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from subllm.languages import canonical, of_path

# Tokens that precede a path in prompts built by editors for the known families.
_SEPARATORS = ("<|file_sep|>", "<|file_separator|>", "<file_sep>", "<filename>", "+++++ ")
_SEPARATED_PATH = re.compile(r"[ \t]{0,8}([^\n<>|]{1,400})")
_REACH, _TRIES = 100_000, 8  # characters from the end, and separators, that are looked at
_HEAD, _TAIL = 4_000, 12_000  # characters of labelled paths and fences
# "# Path: src/app.py", "// File: main.cpp", as editors mark snippets of other files.
_COMMENT_START = r"[ \t]*(?:#|//|--|/\*|;|<!--)[ \t]*"
_LABELLED_PATH = re.compile(
    rf"^{_COMMENT_START}(?:path|file|filename|filepath)[ \t]*:[ \t]*([^\n]{{1,400}}?)"
    r"[ \t]*(?:\*/|-->)?[ \t]*$",
    re.MULTILINE | re.IGNORECASE,
)
# A bare path is believed in the first line only: "// src/main.cpp".
_BARE_PATH = re.compile(
    rf"\A\s{{0,64}}(?:<[^\n>]{{1,40}}>)*{_COMMENT_START}([\w./\\+@-]+\.[A-Za-z+]{{1,8}})"
    r"[ \t]*(?:\*/|-->)?[ \t]*$",
    re.MULTILINE,
)
_FENCE = re.compile(r"^[ \t>]*(?:```+|~~~+)[ \t]*\{?\.?([A-Za-z][\w+#.:/\\-]*)", re.MULTILINE)
# Fences that say nothing of the language that is asked for.
_NEUTRAL_FENCES = frozenset(
    {
        "text",
        "shell",
        "console",
        "terminal",
        "output",
        "json",
        "yaml",
        "toml",
        "xml",
        "diff",
        "markdown",
        "ini",
        "log",
        "plain",
        "csv",
        "dockerfile",
        "makefile",
        "http",
        "patch",
    }
)


def of_prompt_path(prompt: str) -> str | None:
    """The language of the file that a fill-in-the-middle prompt is about: the last path
    after a file separator token, else the last labelled path comment, else a path in
    the first line."""
    if language := _of_separated(prompt):
        return language
    text = _ends(prompt)
    paths = _LABELLED_PATH.findall(text) or _BARE_PATH.findall(text)
    return _first(of_path(path) for path in reversed(paths))


def _of_separated(prompt: str) -> str | None:
    least, end = max(0, len(prompt) - _REACH), len(prompt)
    for _ in range(_TRIES):
        at, token = max((prompt.rfind(token, least, end), token) for token in _SEPARATORS)
        if at < 0:
            return None
        path = _SEPARATED_PATH.match(prompt, at + len(token))
        if path and (language := of_path(path[1])):
            return language
        end = at
    return None


def of_fences(text: str) -> str | None:
    """The language of the last fenced code block whose tag names one. A tag may carry a
    path, as in ```` ```python:src/app.py ````."""
    text = _ends(text)
    if "```" not in text and "~~~" not in text:
        return None
    found = None
    for match in _FENCE.finditer(text):
        tag = re.split(r"[:/\\]", match[1])[0]
        language = of_path(match[1]) if "." in match[1] else canonical(tag)
        if language and language not in _NEUTRAL_FENCES:
            found = language
    return found


def _ends(text: str) -> str:
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]}\n{text[-_TAIL:]}"


def _first(items: Iterable[str | None]) -> str | None:
    return next((item for item in items if item is not None), None)
