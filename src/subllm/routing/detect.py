"""Language hints that a request carries outside its code: paths, fences, names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from subllm.routing.languages import canonical, of_path

# Tokens that precede a path in prompts built by editors for the known families.
_SEPARATORS = ("<|file_sep|>", "<|file_separator|>", "<file_sep>", "<filename>", "+++++ ")
_SEPARATED_PATH = re.compile(
    "(?:" + "|".join(re.escape(token) for token in _SEPARATORS) + r")[ \t]*([^\n<>|]{1,400})"
)
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

_NAMES = re.compile(
    r"(?<![\w.+#/-])(?:"
    r"(?P<javascript>javascript|java script|typescript|node\.?js|react|vue\.js|ecmascript"
    r"|(?-i:JS|TS|js|ts|Node))"
    r"|(?P<java>java)"
    r"|(?P<python>python ?[23]?(?:\.\d+)?|py3|(?-i:py)|django|numpy|pandas|pytest)"
    r"|(?P<cpp>c\+\+ ?(?:\d\d)?|cpp(?:\d\d)?|(?-i:C)(?= (?:code|program|function|source|struct"
    r"|header|library|language)\b)|(?<=\bin )(?-i:C)(?=[\s.,:;!?)]|$))"
    r"|(?P<csharp>c#|c sharp|csharp)"
    r"|(?P<rust>(?-i:Rust)|rustlang)"
    r"|(?P<go>golang|(?<=\bin )(?-i:Go)(?=[\s.,:;!?)]|$)|(?-i:Go)(?= (?:code|program|function)\b))"
    r"|(?P<kotlin>kotlin)|(?P<ruby>(?-i:Ruby))|(?P<php>php)|(?P<swift>(?-i:Swift))"
    r"|(?P<scala>(?-i:Scala))|(?P<haskell>haskell)|(?P<sql>sql)|(?P<shell>bash|shell script)"
    r")(?![\w+#-]|\.\w)",
    re.IGNORECASE,
)
_CHAT_CHARS = 8_000  # looked at from either end of a message
_NAMED_FILE = re.compile(r"(?<![\w@./\\-])[\w./\\-]{0,200}\w\.(?:[A-Za-z]{1,5}|[ch]\+\+)(?![\w.])")
_TARGET = re.compile(
    r"\b(?:in|to|into|using|with|as)\s+(?:an?\s+|the\s+|some\s+)?"
    r"(?:(?:modern|plain|pure|idiomatic|valid|clean|vanilla)\s+)?$",
    re.IGNORECASE,
)


def of_prompt_path(prompt: str) -> str | None:
    """The language of the file that a fill-in-the-middle prompt is about: the last path
    after a file separator token, else the last labelled path comment, else a path in
    the first line."""
    paths = [match[1] for match in _SEPARATED_PATH.finditer(prompt)]
    paths = paths or _LABELLED_PATH.findall(prompt) or _BARE_PATH.findall(prompt)
    return _first(of_path(path) for path in reversed(paths))


def of_fences(text: str) -> str | None:
    """The language of the last fenced code block whose tag names one. A tag may carry a
    path, as in ```` ```python:src/app.py ````."""
    found = None
    for match in _FENCE.finditer(text):
        tag = re.split(r"[:/\\]", match[1])[0]
        language = of_path(match[1]) if "." in match[1] else canonical(tag)
        if language and language not in _NEUTRAL_FENCES:
            found = language
    return found


def of_names(text: str) -> str | None:
    """The language that a person names in `text` ("in C++", "a JavaScript function",
    "fix utils.py"). Of several, one that is a target ("to Python", "in Java") wins,
    the last such one; else the first. Code blocks are left out."""
    text = re.sub(r"```.*?(?:```|\Z)", " ", text, flags=re.DOTALL)
    if len(text) > 2 * _CHAT_CHARS:
        text = text[:_CHAT_CHARS] + " " + text[-_CHAT_CHARS:]
    named: list[tuple[int, str]] = [
        (match.start(), str(match.lastgroup)) for match in _NAMES.finditer(text)
    ]
    for match in _NAMED_FILE.finditer(text):
        language = of_path(match[0])
        if language and language not in _NEUTRAL_FENCES:
            named.append((match.start(), language))
    named.sort()
    targets = [
        language for start, language in named if _TARGET.search(text[max(0, start - 40) : start])
    ]
    if targets:
        return targets[-1]
    return named[0][1] if named else None


def _first(items: Iterable[str | None]) -> str | None:
    return next((item for item in items if item is not None), None)
