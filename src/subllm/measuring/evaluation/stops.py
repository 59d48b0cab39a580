"""Where a completion ends: rules that watch it being written.

A model asked for one function goes on with the next, with tests, with prose. What follows
the function is not part of the answer, and writing it only costs time.
"""

from __future__ import annotations

import re
from typing import Protocol

from subllm.models.text.lexing import depth, events

_FENCE = re.compile(r"```")
_RESTART = ("def ", "async def ", "class ", "from ", "import ", "@", "#")
_JAVA_MAIN = re.compile(r"\s*public\s+static\s+void\s+main\b")
# Lines that stand at the top level only. Bodies written at the margin exist, so a line
# must look like the beginning of a definition.
_TOP_LEVEL: dict[str, re.Pattern[str]] = {
    "java": re.compile(r"(?:public\s+|final\s+|abstract\s+)*(?:class|interface|enum|record)\s+\w"),
    "cpp": re.compile(
        r"#include\b|using\s+namespace\b|template\s*<|int\s+main\s*\("
        r"|(?!return\b|else\b|if\b|while\b|for\b|switch\b|do\b)"
        r"\w[\w:]*(?:<[^;{}()]*>)?[\s*&]+\w+\s*\([^;{}]*\)\s*\{"
    ),
    "javascript": re.compile(
        r"(?:export\s+|async\s+)*(?:function\b|class\s+\w)|module\.exports\b"
        r"|(?:const|let|var)\s+\w+\s*=\s*(?:async\s*)?(?:function\b|\([^)]*\)\s*=>)"
    ),
}


class StopRule(Protocol):
    """One completion's rule; it sees a text that only grows.

    cut  length of the text that counts, as soon as it is decided; then generation ends
    end  the same for a text that ended by itself or was cut short
    """

    def cut(self, text: str) -> int | None: ...

    def end(self, text: str) -> int: ...


class PythonBlock:
    """A function's body ends before the first line at the margin.

    A model may also begin anew and write the whole function, with imports before it: lines
    at the margin are then part of the answer until a body was written. A comment at the
    margin ends a body too: it mostly announces tests.
    """

    def __init__(self, head: str) -> None:
        """`head` precedes the completion."""
        self._at = 0
        self._depth = 0
        self._body = bool(head) and not head.endswith("\n")

    def cut(self, text: str) -> int | None:
        if self._ends(text, self._at):
            return self._at
        depth_here = self._depth
        for event in events(text, "python", self._at):
            if event.kind != "line":
                depth_here += 1 if event.kind == "open" else -1
                continue
            if depth_here <= 0 and self._ends(text, event.at):
                return event.at
            self._at, self._depth = event.at, depth_here
        return None

    def end(self, text: str) -> int:
        found = self.cut(text)
        return len(text) if found is None else found

    def _ends(self, text: str, at: int) -> bool:
        """Whether the line at `at`, perhaps still unfinished, is outside the function."""
        if self._depth > 0 and at == self._at:
            return False
        line = text[at : at + 16]
        code = line.lstrip(" \t")
        if not code or code[0] in "\r\n":
            return False
        if at == 0 and self._body:  # goes on in the prompt's last line
            return False
        if len(code) < len(line):
            self._body = self._body or code[0] != "#"
            return False
        if self._body:
            return True
        return not any(code.startswith(word) or word.startswith(code) for word in _RESTART)


class BraceBlock:
    """A function ends with its closing brace, or before the next definition.

    Where it stands in a class, members may follow that it calls; the answer then ends with
    the class, or before a `main`.
    """

    def __init__(self, language: str, head: str) -> None:
        """`head` precedes the completion and opens the braces that it must close."""
        self._language = language
        self._depth = self._opened = depth(head, language)
        self._at = 0
        self._member: int | None = None  # end of the last whole member, up to `_at`
        self._seen: int | None = None  # the same, up to the end of the text

    def cut(self, text: str) -> int | None:
        level, member = self._depth, self._member
        if self._ends(text, self._at, level):
            return self._at if member is None else member
        for event in events(text, self._language, self._at):
            if event.kind == "open":
                level += 1
            elif event.kind == "close":
                level -= 1
                if level <= 0:
                    return event.at + 1
                if level < self._opened:
                    member = event.at + 1
            else:
                if self._ends(text, event.at, level):
                    return event.at if member is None else member
                self._at, self._depth, self._member = event.at, level, member
        self._seen = member
        return None

    def end(self, text: str) -> int:
        found = self.cut(text)
        if found is None:
            found = self._seen
        return len(text) if found is None else found

    def _ends(self, text: str, at: int, level: int) -> bool:
        if at == 0 or level <= 0:
            return False
        if _FENCE.match(text, at) or _TOP_LEVEL[self._language].match(text, at):
            return True
        # Only where no member is open.
        return level < self._opened and bool(_JAVA_MAIN.match(text, at))


class FencedBlock:
    """A reply in a chat ends with its first code block."""

    _BLOCK = re.compile(r"^```[^\n`]*\n.*?^```[ \t]*$", re.DOTALL | re.MULTILINE)

    def cut(self, text: str) -> int | None:
        # The closing fence is certain only when its line is.
        match = self._BLOCK.search(text)
        return match.end() if match and match.end() < len(text) else None

    def end(self, text: str) -> int:
        found = self.cut(text)
        return len(text) if found is None else found


class OneLine:
    """One line, with its line end unless what follows begins with one."""

    def __init__(self, suffix: str) -> None:
        self._keep = 0 if suffix.startswith("\n") else 1

    def cut(self, text: str) -> int | None:
        start = len(text) - len(text.lstrip())
        found = text.find("\n", start)
        return None if found < 0 else found + self._keep

    def end(self, text: str) -> int:
        found = self.cut(text)
        return len(text) if found is None else found


def function_rule(language: str, head: str) -> StopRule:
    """The rule for a function of `language` that `head` began."""
    return PythonBlock(head) if language == "python" else BraceBlock(language, head)
