"""How the chunks of a stream are written, and what a client sees while it waits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from subllm.serving.server.errors import ApiError

ErrorShape = Callable[[ApiError], dict[str, Any]]


@dataclass(frozen=True)
class Framing:
    """waiting  is written while nothing comes ("": nothing is)
    end      is written last, unless the stream failed
    """

    media_type: str
    chunk: Callable[[dict[str, Any]], str]
    failure: Callable[[ApiError], str]
    waiting: str = ""
    end: str = ""


def data_events(error: ErrorShape, *, end: str = "") -> Framing:
    """Server-sent events: one JSON object per event, LF line ends, `: keep-alive` comments
    while nothing comes (never `: ping`: some clients take that as the end). A failure on the
    way is an event with an error object."""
    return Framing(
        "text/event-stream",
        _data,
        lambda failure: _data(error(failure)),
        ": keep-alive\n\n",
        end,
    )


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def compact(value: Any) -> str:
    return _ENCODER.encode(value)


def _data(chunk: dict[str, Any]) -> str:
    return f"data: {compact(chunk)}\n\n"


def named_events(error: ErrorShape, *, waiting: dict[str, Any] | None = None) -> Framing:
    """Server-sent events that carry the `type` of their object as their name too."""
    return Framing(
        "text/event-stream",
        _named,
        lambda failure: _named({"type": "error", **error(failure)}),
        ": keep-alive\n\n" if waiting is None else _named(waiting),
    )


def _named(chunk: dict[str, Any]) -> str:
    return f"event: {chunk['type']}\n{_data(chunk)}"
