"""Memory that requests leave behind goes back to the system once nobody asks for a while.

The C library keeps what threads have freed, each in a heap of its own, and a long prompt is taken
apart in whichever thread is free.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from subllm.machine import give_memory_back

QUIET = 1.0
"""Seconds without a request, after which memory is given back."""


class Tidying:
    """ASGI middleware. It waits for the end of what is `busy`, and takes milliseconds of a thread
    once after each burst of requests."""

    def __init__(
        self,
        app: ASGIApp,
        busy: Callable[[], bool],
        give_back: Callable[[], None] = give_memory_back,
        quiet: float = QUIET,
    ) -> None:
        self._app = app
        self._busy = busy
        self._give_back = give_back
        self._quiet = quiet
        self._due: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        finally:
            if scope["type"] == "http" and scope["method"] == "POST":
                self._wait()

    def _wait(self) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due = asyncio.get_running_loop().call_later(self._quiet, self._tidy)

    def _tidy(self) -> None:
        self._due = None
        if not self._busy():  # else the end of that request comes back here
            asyncio.get_running_loop().run_in_executor(None, self._give_back)
