"""A connection that ends when its client does not: half of a request holds nothing for long."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

STALL_SECONDS = 10.0


class Connection(H11Protocol):
    """uvicorn's h11 connection with a time limit of STALL_SECONDS: for the head of a request, from
    the connection on or from its first byte, however slowly it drips; for each further piece of a
    body. uvicorn's own limit is for connections that are idle after a reply."""

    _stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        state = self.conn.their_state
        if state is h11.IDLE and self._stall is not None:
            return  # a head that comes in pieces
        self._no_longer()
        if state in (h11.IDLE, h11.SEND_BODY):
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._no_longer()
        super().connection_lost(exc)

    def _expect(self) -> None:
        self._stall = self.loop.call_later(STALL_SECONDS, self._end)

    def _no_longer(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _end(self) -> None:
        self._stall = None
        # A reply that is under way may have come before the whole body.
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.close()
