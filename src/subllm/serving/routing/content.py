"""Which language a piece of text is written in: what its head says, else a linear model.

The answer is None where the model is not sure, or takes the text for prose: a wrong sub-model is
worse than the fallback. A bounded part of the text is read whatever its length: its beginning
without notices (imports and declarations) and what surrounds the cursor.
"""

from __future__ import annotations

import re

from subllm.languages import UNSTATED, canonical, is_known
from subllm.serving.routing.model import detector

HEAD, BEFORE, AFTER = 2_000, 3_500, 2_000  # characters
SURE = 0.35  # the least probability of an answer
PROSE = "prose"
_NOTICE = 6_000  # characters of comments that are passed over at most

_FIRST = re.compile(
    r"\s{0,8}(?:#![^\n]{0,80}?(?:[/ ])(?P<shebang>python|node|deno|bun|ts-node|bash|zsh|dash|ksh|sh"
    r"|ruby|perl|php|lua|Rscript|groovy|escript|elixir)[\d.]*(?=\s|$)"
    r"|(?P<php><\?php)|(?P<html><!doctype html)|(?P<xml><\?xml))",
    re.IGNORECASE,
)
_INTERPRETERS = {
    "deno": "javascript",
    "bun": "javascript",
    "ts-node": "javascript",
    "dash": "shell",
    "ksh": "shell",
    "rscript": "r",
    "escript": "erlang",
}
_MODELINE = re.compile(
    r"-\*-[ \t]*(?:mode:[ \t]*)?([\w+#-]{1,20})[ \t]*(?:;[^\n]{0,80})?-\*-"
    r"|\bvim?:[^\n]{0,80}?\b(?:ft|filetype|syntax)=([\w+#-]{1,20})"
)

# Markers of fill-in-the-middle prompts; where the text after the cursor comes in.
_MARKERS = re.compile(
    r"<[|｜][^<>|｜\n]{1,30}[|｜]>|<(?:fim_\w{1,20}|fim-\w{1,20}|PRE|SUF|MID|EOT|file_sep|repo_name)>"
)
_CURSORS = (
    "<|fim_suffix|>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<|fim▁hole|>",
    "<fim-suffix>",
    "<SUF>",
)
_COMMENTS = re.compile(
    r"\s{0,200}(?:/\*.{0,5000}?\*/|(?://|--[ \t]|#(?![!a-z]))[^\n]{0,400}\n)", re.DOTALL
)


def of_content(before: str, after: str = "") -> str | None:
    """The language of the text around a cursor, None when there is no clear answer."""
    if not after:
        before, after = _at_cursor(before)
    if named := of_head(before):
        return named
    found = detector().probabilities(window(before, after))
    if not found:
        return None
    language = max(found, key=lambda name: found[name])
    return language if language != PROSE and found[language] >= SURE else None


def of_head(text: str) -> str | None:
    """What a first line names (`#!/usr/bin/env node`, `<?php`), or an editor's mode line."""
    if first := _FIRST.match(text[:200]):
        if interpreter := first["shebang"]:
            name = interpreter.lower()
            return _INTERPRETERS.get(name) or canonical(name)
        return first.lastgroup
    for mode in _MODELINE.finditer(text[:400]):
        language = canonical(mode[1] or mode[2])
        if is_known(language) and language not in UNSTATED:
            return language
    return None


def window(before: str, after: str = "") -> str:
    """The part that is read."""
    head = without_notices(before[: HEAD + _NOTICE])
    start = min(len(before), HEAD + _NOTICE) - len(head)
    if len(before) - start > HEAD + BEFORE:
        text = f"{head[:HEAD]}\n{before[-BEFORE:]}\n{after[:AFTER]}"
    else:
        text = f"{before[start:]}\n{after[:AFTER]}" if after else before[start:]
    return _MARKERS.sub("\n", text)


def without_notices(text: str) -> str:
    """`text` after the comments at its beginning, which seldom tell a language; whole where
    there is nothing else."""
    at = 0
    while at < _NOTICE and (comment := _COMMENTS.match(text, at)):
        at = comment.end()
    return text[at:] if text[at:].strip() else text


def _at_cursor(prompt: str) -> tuple[str, str]:
    """What a prompt has before and after its cursor."""
    for marker in _CURSORS:
        at = prompt.rfind(marker)
        if at >= 0:
            return prompt[:at], prompt[at + len(marker) :]
    return prompt, ""
