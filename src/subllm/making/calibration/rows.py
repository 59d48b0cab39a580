"""Rows of data sets as documents."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from subllm.making.calibration.source import Document, pieces
from subllm.models.tables.seeded import key

KEPT = 20_000  # documents of one file that are kept in memory
_ROLES = ("system", "user", "assistant", "tool")
SHAPES = (
    '"text", "prompt" and "completion", "instruction" and "output", "messages", or "prefix", '
    '"middle" and "suffix"'
)


def sample(documents: Iterable[Document], seed: int) -> Iterator[Document]:
    """The documents in a seeded order; of more than KEPT, a random selection."""
    yield from heapq.nsmallest(KEPT, documents, key=lambda document: key(seed, document.id))


def document_of(row: Mapping[str, Any], identity: str) -> Iterator[Document]:
    """The documents of a row of a shape that trainers use (SHAPES); text stays as it is.

    Where the row also has "fence" (a tag such as "python"), its text or output is code of that
    language, which takes the forms of code.

    Raises ValueError, saying what is wrong with the row.
    """
    if "messages" in row:
        yield Document(identity, turns=_turns(row["messages"]))
    elif "instruction" in row:
        instruction, answer = _text(row, "instruction"), _text(row, "output")
        asked = with_input(instruction, _text(row, "input", ""))
        yield Document(identity, answer, asked, _fence(row))
    elif "prompt" in row:
        yield from pieces(Document(identity, _text(row, "prompt") + _text(row, "completion")))
    elif "text" in row:
        yield from pieces(Document(identity, _text(row, "text"), tag=_fence(row)))
    elif "middle" in row:
        prefix, middle = _text(row, "prefix"), _text(row, "middle")
        if not middle.strip():
            raise ValueError("'middle' is blank")
        hole = (len(prefix), len(prefix) + len(middle))
        yield Document(identity, prefix + middle + _text(row, "suffix"), hole=hole)
    else:
        raise ValueError(f"a row has {SHAPES}; this one has {', '.join(sorted(row)) or 'nothing'}")


def _fence(row: Mapping[str, Any]) -> str | None:
    return _text(row, "fence", "") or None


def with_input(instruction: str, given: str) -> str:
    return f"{instruction}\n\n{given}" if given.strip() else instruction


def clean(text: str) -> str:
    """JSON can spell halves of a character, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode()


def _text(row: Mapping[str, Any], field: str, default: str | None = None) -> str:
    value = row.get(field)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise ValueError(f"{field!r} is {'missing' if value is None else 'no text'}")
    return clean(value)


def _turns(messages: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(messages, list) or not messages:
        raise ValueError("'messages' is no list of messages")
    turns = []
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise ValueError(f"a message needs a 'role', one of {', '.join(_ROLES)}")
        turns.append((str(message["role"]), _text(message, "content")))
    return tuple(turns)
