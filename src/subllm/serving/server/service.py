"""What every dialect's routes are made with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import Response
from starlette.datastructures import Headers

from subllm.serving.routing.router import Router
from subllm.serving.routing.sessions import session_key
from subllm.serving.server.answer import answer
from subllm.serving.server.config import ServerConfig
from subllm.serving.server.convert import Plan, Planner
from subllm.serving.server.errors import bad_request
from subllm.serving.server.framing import Framing
from subllm.serving.server.generation import Caller, Generation
from subllm.serving.server.live import LiveRequests
from subllm.serving.server.metrics import Metrics
from subllm.serving.server.models import ModelSet
from subllm.serving.server.reply import Reply
from subllm.serving.server.worker import EngineWorker

TIMEOUT = "x-subllm-timeout-ms"
_CLIENT_CHARS = 80  # of what a client calls itself, to show it


@dataclass(frozen=True)
class Service:
    models: ModelSet
    router: Router
    planner: Planner
    worker: EngineWorker
    config: ServerConfig
    metrics: Metrics
    live: LiveRequests
    planned: Callable[[Plan], None]  # told of every plan, on the thread that made it

    async def plan(self, asked: Callable[[], Generation], request: Request) -> Plan:
        """The plan for what `asked` makes of a body, off the event loop. Raises ApiError and
        the errors of routing and text."""
        caller = caller_of(request)
        return await asyncio.to_thread(self._planned, asked, caller)

    def _planned(self, asked: Callable[[], Generation], caller: Caller) -> Plan:
        plan = self.planner.plan(asked(), caller)
        self.planned(plan)
        return plan

    async def answer(self, request: Request, reply: Reply, framing: Framing | None) -> Response:
        """Run the reply's plan: a stream in `framing`, or one JSON value without."""
        client = request.headers.get("user-agent", "")[:_CLIENT_CHARS]
        self.live.begin(reply, request.url.path, client)
        return await answer(
            request,
            self.worker,
            reply,
            framing,
            keep_alive=self.config.keep_alive_seconds,
            ended=self._ended,
        )

    def _ended(self, reply: Reply) -> None:
        self.metrics.count(reply)
        self.live.end(reply)


def caller_of(request: Request) -> Caller:
    headers = request.headers
    peer = request.client.host if request.client else ""
    key = headers.get("x-api-key") or headers.get("authorization", "")
    session = session_key(key, headers.get("user-agent", ""), peer)
    return Caller(session, headers.get("x-subllm-language"), _timeout(headers))


def _timeout(headers: Headers) -> float | None:
    """Seconds until a reply ends as it stands, counted from here."""
    given = headers.get(TIMEOUT)
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and 0 < len(given) < 10 and int(given)):
        raise bad_request(f"{TIMEOUT} must be milliseconds, a whole number above 0", TIMEOUT)
    return int(given) / 1000
