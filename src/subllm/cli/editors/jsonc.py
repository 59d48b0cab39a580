"""JSON with comments and trailing commas, as VS Code, Zed and opencode read it, changed in place.

The parser keeps where each value stands, so that a change touches no other character.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from subllm.cli.editors.tool import Settings, merged
from subllm.errors import UsageError

_SPACE = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_OTHER = re.compile(r"[-+.\w]+")
_INDENT = re.compile(r"\n([ \t]+)\S")


def render(settings: Settings) -> str:
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"


def parse(text: str) -> Any:
    """Raises UsageError."""
    return _Parser(text).document().value


def merge(text: str, settings: Settings, gentle: Settings) -> str:
    if not text.strip("\ufeff \t\r\n"):
        return render(merged(gentle, settings))
    root = _Parser(text).document()
    if not isinstance(root.value, dict):
        raise UsageError("it is no JSON object; correct it or give another --file")
    wanted = merged(merged(gentle, root.value), settings)
    found = _INDENT.search(text)
    edits = _Edits(text, found.group(1) if found else "  ")
    edits.object(root, wanted, "")
    changed = edits.applied()
    if parse(changed) != wanted:
        raise UsageError("it cannot be changed safely; put the printed settings in by hand")
    return changed


@dataclass
class _Node:
    """A value, where it stands, and for an object its members by name (the last of a name)."""

    value: Any
    start: int
    end: int = 0
    members: dict[str, _Node] = field(default_factory=dict)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 1 if text.startswith("\ufeff") else 0

    def document(self) -> _Node:
        self._skip()
        try:
            node = self._value()
        except (IndexError, ValueError, RecursionError):
            raise self._error() from None
        self._skip()
        if self._at != len(self._text):
            raise self._error()
        return node

    def _value(self) -> _Node:
        node = _Node(None, self._at)
        char = self._text[self._at]
        if char == "{":
            self._object(node)
        elif char == "[":
            self._array(node)
        else:
            node.value = json.loads(self._token(_STRING if char == '"' else _OTHER))
        node.end = self._at
        return node

    def _object(self, node: _Node) -> None:
        self._at += 1
        while self._more("}"):
            name = json.loads(self._token(_STRING))
            self._skip()
            self._expect(":")
            self._skip()
            node.members[name] = self._value()
            self._separator("}")
        node.value = {name: member.value for name, member in node.members.items()}

    def _array(self, node: _Node) -> None:
        self._at += 1
        node.value = []
        while self._more("]"):
            node.value.append(self._value().value)
            self._separator("]")

    def _more(self, end: str) -> bool:
        self._skip()
        if self._text[self._at] != end:
            return True
        self._at += 1
        return False

    def _separator(self, end: str) -> None:
        self._skip()
        if self._text[self._at] != end:
            self._expect(",")

    def _expect(self, char: str) -> None:
        if self._text[self._at] != char:
            raise ValueError
        self._at += 1

    def _token(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError
        self._at = found.end()
        return found.group()

    def _skip(self) -> None:
        found = _SPACE.match(self._text, self._at)
        assert found is not None
        self._at = found.end()

    def _error(self) -> UsageError:
        line = self._text.count("\n", 0, self._at) + 1
        return UsageError(f"line {line} is no JSON; correct it or give another --file")


class _Edits:
    """Changes of a text, gathered and then made from its end."""

    def __init__(self, text: str, indent: str) -> None:
        self._text = text
        self._indent = indent
        self._newline = "\r\n" if "\r\n" in text else "\n"
        self._edits: list[tuple[int, int, str]] = []

    def object(self, node: _Node, wanted: Mapping[str, Any], indent: str) -> None:
        """Make the members of `node`, whose line is indented by `indent`, those of `wanted`."""
        inner = indent + self._indent
        new = []
        for name, value in wanted.items():
            old = node.members.get(name)
            if old is None:
                new.append(f"{json.dumps(name, ensure_ascii=False)}: {self._dumped(value, inner)}")
            elif isinstance(old.value, dict) and isinstance(value, Mapping):
                self.object(old, value, inner)
            elif old.value != value or type(old.value) is not type(value):
                self._edits.append((old.start, old.end, self._dumped(value, inner)))
        if new:
            self._append(node, new, inner, indent)

    def applied(self) -> str:
        text = self._text
        for start, end, new in sorted(self._edits, reverse=True):
            text = text[:start] + new + text[end:]
        return text

    def _append(self, node: _Node, new: list[str], inner: str, indent: str) -> None:
        body = f",{self._newline}{inner}".join(new)
        brace = node.end - 1
        if not node.members:
            self._edits.append(
                (brace, brace, f"{self._newline}{inner}{body}{self._newline}{indent}")
            )
            return
        last = max(member.end for member in node.members.values())
        # Of the rest up to the brace only space is not kept: comments belong to what they follow.
        rest = self._text[last:brace]
        end = last + len(rest.rstrip())
        closing = "" if self._text[end:brace].strip(" \t") else f"{self._newline}{indent}"
        between = self._text[last:end] if _has_comma(rest) else f",{self._text[last:end]}"
        self._edits.append((last, end, f"{between}{self._newline}{inner}{body}{closing}"))

    def _dumped(self, value: Any, indent: str) -> str:
        text = json.dumps(value, indent=self._indent, ensure_ascii=False)
        return text.replace("\n", f"{self._newline}{indent}")


def _has_comma(rest: str) -> bool:
    """Whether more than space and comments follows the last member."""
    found = _SPACE.match(rest)
    assert found is not None
    return found.end() < len(rest)
