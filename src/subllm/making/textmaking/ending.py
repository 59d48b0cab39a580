"""Where the first function of a text ends, while it is being written."""

from __future__ import annotations

from subllm.models.text.lexing import events


def function_end(text: str, language: str, outer: int = 0) -> int | None:
    """One past the line that closes the first function of `text` (Java, C++ or JavaScript); None
    while it is open. outer: braces that are around it.

    The brace that ends a function stands first in its line; one that is not (of a parameter that
    is taken apart, of a table in one line) ends nothing.
    """
    depth, opened = 0, False
    for event in events(text, language):
        if event.kind == "open":
            depth += 1
            opened = opened or depth > outer
        elif event.kind == "close":
            depth -= 1
            line = text.rfind("\n", 0, event.at) + 1
            if opened and depth <= outer and not text[line : event.at].strip():
                end = text.find("\n", event.at)
                return len(text) if end < 0 else end + 1
    return None
