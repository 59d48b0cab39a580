"""How a stream is written: as server-sent events, by sse-starlette, or as lines of JSON."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from fastapi.responses import Response, StreamingResponse
from sse_starlette import EventSourceResponse, JSONServerSentEvent, ServerSentEvent
from sse_starlette.sse import AppStatus
from starlette.types import Receive, Scope, Send

from subllm.serving.server.errors import ApiError, ErrorShape

# A server that stops ends the work of its streams (`run.Server.shutdown`), which then say so in
# their dialect. sse-starlette would cut them off when it sees the signal, perhaps before that; it
# has wrapped uvicorn's handler of signals, which does what it always did with this alone.
AppStatus.enable_automatic_graceful_drain = False

_LF = "\n"
_KEEP_ALIVE = ServerSentEvent(comment="keep-alive", sep=_LF)  # ": ping" ends it for some clients


class Pieces(Protocol):
    """The pieces of a stream. Closing it ends the work that makes them."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


class Framing(ABC):
    """`end` is written last, unless the stream failed; b"": nothing is."""

    end = b""

    @abstractmethod
    def chunk(self, chunk: dict[str, Any]) -> bytes: ...

    @abstractmethod
    def failure(self, failure: ApiError) -> bytes:
        """What tells of a failure on the way."""

    @abstractmethod
    def response(self, pieces: Pieces, headers: Mapping[str, str], keep_alive: float) -> Response:
        """Sends `pieces`, and a sign of life every `keep_alive` seconds where there is one. It
        closes them, also when the client leaves."""


class Events(Framing):
    """One JSON object per event, LF line ends.

    named    events carry the `type` of their object as their name too
    waiting  the object of signs of life; None: they are comments
    end      the data of the last event; None: there is none
    """

    def __init__(
        self,
        error: ErrorShape,
        *,
        named: bool = False,
        waiting: dict[str, Any] | None = None,
        end: str | None = None,
    ) -> None:
        self._error = error
        self._named = named
        self._waiting = _KEEP_ALIVE if waiting is None else self._event(waiting)
        if end is not None:
            self.end = ServerSentEvent(end, sep=_LF).encode()

    def chunk(self, chunk: dict[str, Any]) -> bytes:
        return self._event(chunk).encode()

    def failure(self, failure: ApiError) -> bytes:
        error = self._error(failure)
        return self.chunk({"type": "error", **error} if self._named else error)

    def response(self, pieces: Pieces, headers: Mapping[str, str], keep_alive: float) -> Response:
        return _EventResponse(
            pieces,
            headers=headers,
            ping=keep_alive,
            ping_message_factory=lambda: self._waiting,
            sep=_LF,
        )

    def _event(self, value: dict[str, Any]) -> ServerSentEvent:
        name = value["type"] if self._named else None
        return JSONServerSentEvent(value, event=name, sep=_LF)


class Lines(Framing):
    """One JSON object per line; without signs of life."""

    media_type = "application/x-ndjson"

    def __init__(self, error: ErrorShape) -> None:
        self._error = error

    def chunk(self, chunk: dict[str, Any]) -> bytes:
        return f"{_ENCODER.encode(chunk)}\n".encode()

    def failure(self, failure: ApiError) -> bytes:
        return self.chunk(self._error(failure))

    def response(self, pieces: Pieces, headers: Mapping[str, str], keep_alive: float) -> Response:
        headers = {**headers, "cache-control": "no-store"}
        return _LineResponse(pieces, headers=headers, media_type=self.media_type)


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class _Closing(Response):
    """Closes what it sends. Neither base does wherever the client leaves."""

    body_iterator: Any  # Pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.body_iterator.aclose()


class _EventResponse(_Closing, EventSourceResponse):
    pass


class _LineResponse(_Closing, StreamingResponse):
    pass
