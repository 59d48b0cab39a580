"""Finds the calls of tools in a reply's text, as it comes."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from typing import Any

from subllm.serving.server.tools import BEGIN, END

_FENCE = "```json"
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)')


@dataclass
class Call:
    """`arguments`: JSON, so far; complete where `done`."""

    id: str
    name: str
    arguments: str = ""
    done: bool = False


@dataclass(frozen=True)
class CallPiece:
    """Something new of call `number` of a reply: its beginning, a piece of its arguments, or its
    end."""

    number: int
    call: Call
    begins: bool = False
    arguments: str = ""
    ends: bool = False


Pieces = tuple[str, list[CallPiece]]
"""Text that belongs to no call, and what is new of calls."""


class CallParser:
    """Of one reply. Text comes through as soon as it is certain that it begins no call.

    Small models leave the tags out: a reply that is nothing but a call of a known tool, as JSON
    or in a fence of it, is a call all the same.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self.calls: list[Call] = []
        self._names = names
        self._held = ""
        self._step = self._start
        self._pieces: list[CallPiece] = []
        self._text = ""
        self._depth = 0
        self._string = self._escaped = False

    def push(self, text: str) -> Pieces:
        self._held += text
        while self._step():
            pass
        return self._taken()

    def finish(self) -> Pieces:
        """What was held back, when nothing more comes."""
        held, self._held = self._held, ""
        if self._step in (self._start, self._bare, self._plain):
            calls = self._step == self._bare and self._whole(held)
            if not calls and (held.strip() or not self.calls):
                self._text += held
        elif self._step == self._head:
            self._text += BEGIN + held
        return self._taken()

    def _taken(self) -> Pieces:
        pieces = self._text, self._pieces
        self._text, self._pieces = "", []
        return pieces

    # Each step looks at what is held and says whether to look again.

    def _start(self) -> bool:
        begun = self._held.lstrip()
        if begun.startswith(("{", _FENCE)):
            self._step = self._bare
            return False
        if _FENCE.startswith(begun):
            return False
        self._step = self._plain
        return True

    def _bare(self) -> bool:
        return False

    def _plain(self) -> bool:
        text, tag, rest = self._held.partition(BEGIN)
        if tag:
            self._text += text.rstrip()
            self._held, self._step = rest, self._head
            return True
        certain = text
        for size in range(min(len(BEGIN) - 1, len(text)), 0, -1):
            if text.endswith(BEGIN[:size]):
                certain = text[:-size]
                break
        certain = certain.rstrip()  # the line break before a call belongs to it
        self._text += certain
        self._held = self._held[len(certain) :]
        return False

    def _head(self) -> bool:
        head = _HEAD.match(self._held)
        if head is not None:
            self._begin(json.loads(head[1]))
            self._held, self._step = self._held[head.end() :], self._arguments
            self._depth, self._string, self._escaped = 0, False, False
            return True
        inside, tag, rest = self._held.partition(END)
        if not tag:
            return False
        if not self._whole(inside):
            self._text += BEGIN + inside + END
        self._held, self._step = rest, self._plain
        return True

    def _arguments(self) -> bool:
        for at, char in enumerate(self._held):
            if self._string:
                self._escaped, quoted = char == "\\" and not self._escaped, self._escaped
                self._string = char != '"' or quoted
            elif char == '"':
                self._string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self._add(self._held[: at + 1])
                    self._end()
                    self._held, self._step = self._held[at + 1 :], self._tail
                    return True
        self._add(self._held)
        self._held = ""
        return False

    def _tail(self) -> bool:
        _, tag, rest = self._held.partition(END)
        if not tag:
            return False
        self._held, self._step = rest, self._plain
        return True

    def _whole(self, text: str) -> bool:
        """Takes a text that is calls and nothing else."""
        text = text.strip()
        if text.startswith(_FENCE):
            text = text.removeprefix(_FENCE).removesuffix("```").strip()
        found = _values(text)
        if not found or not all(self._is_call(value) for value in found):
            return False
        for value in found:
            self._begin(value["name"])
            self._add(json.dumps(value["arguments"], ensure_ascii=False))
            self._end()
        return True

    def _is_call(self, value: Any) -> bool:
        return (
            isinstance(value, dict)
            and value.get("name") in self._names
            and isinstance(value.get("arguments"), dict)
        )

    def _begin(self, name: str) -> None:
        self.calls.append(Call(f"call_{uuid.uuid4().hex[:24]}", name))
        self._new(begins=True)

    def _add(self, arguments: str) -> None:
        if arguments:
            self.calls[-1].arguments += arguments
            self._new(arguments=arguments)

    def _end(self) -> None:
        self.calls[-1].done = True
        self._new(ends=True)

    def _new(self, **what: Any) -> None:
        self._pieces.append(CallPiece(len(self.calls) - 1, self.calls[-1], **what))


def _values(text: str) -> list[Any]:
    """The JSON values that a text is made of, a list standing for its items; none where it is
    made of anything else."""
    decoder, values, at = json.JSONDecoder(), [], 0
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return []
        values += value if isinstance(value, list) else [value]
        at = end + len(text[end:]) - len(text[end:].lstrip())
    return values
