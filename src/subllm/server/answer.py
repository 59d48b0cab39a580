"""Runs a plan and answers: one JSON object, or server-sent events.

Either way a client that leaves stops the work, wherever it is. The event stream is
written here and not by sse-starlette: that replaces uvicorn's signal handler on import and
ends streams at shutdown by cancelling them, where a client should see an error object; and
what it knows of disconnects is needed for plain replies all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from subllm.server.errors import api_error
from subllm.server.job_stream import JobStream, until_disconnect
from subllm.server.jobs import Generated, TokenScores
from subllm.server.replies import CompletionReply, Reply
from subllm.server.worker import EngineWorker

CLIENT_CLOSED_REQUEST = 499  # never seen by a client: it has left

Chunks = AsyncGenerator[dict[str, Any], None]


async def chunks(worker: EngineWorker, reply: Reply) -> Chunks:
    """Everything of a reply in order. The first chunk comes after the engine's first
    event, so that a failure until then can still be an HTTP status."""
    plan = reply.plan
    if plan.scores and isinstance(reply, CompletionReply):
        async with JobStream(worker, plan.model.ref, plan.scores) as scoring:
            async for index, event in scoring:
                if isinstance(event, TokenScores):
                    # Thousands of tokens have their texts looked up: streams go on meanwhile.
                    await asyncio.to_thread(reply.scored, index, event.logprobs)
    opened = False
    draft = plan.drafting.draft
    async with JobStream(worker, plan.model.ref, plan.generations, draft) as generation:
        async for index, event in generation:
            if not opened:
                opened = True
                for chunk in reply.opening():
                    yield chunk
            if isinstance(event, Generated):
                for chunk in reply.feed(index, event.event):
                    yield chunk
    if not opened:
        for chunk in reply.opening():
            yield chunk
    for chunk in reply.closing():
        yield chunk


async def answer(
    request: Request, worker: EngineWorker, reply: Reply, *, stream: bool, keep_alive: float
) -> Response:
    headers = {
        "x-subllm-model": reply.plan.route.model,
        "x-subllm-route": reply.plan.route.reason,
    }
    if draft := reply.plan.drafting.draft:
        headers["x-subllm-draft"] = draft.name
    source = Source(chunks(worker, reply), request.receive)
    if stream:
        # Wait a little for the first chunk: until then a failure has its own status.
        await source.peek(keep_alive)
        return EventStream(source, keep_alive, headers)
    async with source:
        while await source.next() is not None:
            pass
        if source.gone:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        return JSONResponse(reply.whole(), headers=headers)


class Source:
    """Chunks until they end or the client leaves. Leaving the context ends the work."""

    def __init__(self, items: Chunks, receive: Receive) -> None:
        self._queue: asyncio.Queue[dict[str, Any] | BaseException | None] = asyncio.Queue()
        self._first: list[dict[str, Any] | None] = []  # what `peek` saw
        self._gone = False
        # One task for all chunks: one for each would cost more than the chunk.
        self._work = asyncio.ensure_future(self._pump(items))
        self._watch = asyncio.ensure_future(self._until_gone(receive))

    async def __aenter__(self) -> Source:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watch.cancel()
        self._work.cancel()
        await asyncio.wait([self._work, self._watch])

    @property
    def gone(self) -> bool:
        return self._gone

    async def peek(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for the next chunk without taking it. A failure
        ends the source and is raised."""
        try:
            item = await self._get(timeout)
        except TimeoutError:
            return
        except BaseException:
            await self.__aexit__()
            raise
        self._first.append(item)

    async def next(self, timeout: float | None = None) -> dict[str, Any] | None:
        """The next chunk; None at the end or when the client has left. Raises
        TimeoutError after `timeout` seconds, and what the work raises."""
        item = self._first.pop() if self._first else await self._get(timeout)
        return None if self._gone else item

    async def _get(self, timeout: float | None) -> dict[str, Any] | None:
        if self._queue.empty():
            async with asyncio.timeout(timeout):
                item = await self._queue.get()
        else:
            item = self._queue.get_nowait()
        if isinstance(item, BaseException):
            raise item
        return item

    async def _pump(self, items: Chunks) -> None:
        try:
            async with contextlib.aclosing(items):
                async for chunk in items:
                    self._queue.put_nowait(chunk)
            self._queue.put_nowait(None)
        except Exception as error:
            self._queue.put_nowait(error)

    async def _until_gone(self, receive: Receive) -> None:
        await until_disconnect(receive)
        self._gone = True
        self._queue.put_nowait(None)


class EventStream(Response):
    """Server-sent events: one JSON object per event, LF line ends, `: keep-alive`
    comments while nothing comes (never `: ping`: some clients take that as the end),
    `[DONE]` last. A failure on the way is an event with an error object."""

    media_type = "text/event-stream"

    def __init__(self, source: Source, keep_alive: float, headers: Mapping[str, str]) -> None:
        super().__init__(headers={**headers, "cache-control": "no-store"})
        del self.headers["content-length"]
        self._source = source
        self._keep_alive = keep_alive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write(text: str, more: bool = True) -> None:
            body = text.encode()
            await send({"type": "http.response.body", "body": body, "more_body": more})

        async with self._source as source:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                while True:
                    try:
                        chunk = await source.next(self._keep_alive)
                    except TimeoutError:
                        await write(": keep-alive\n\n")
                        continue
                    if chunk is None:
                        break
                    await write(_event(chunk))
            except Exception as error:
                await write(_event(api_error(error).body()), more=False)
                return
            if not source.gone:
                await write("data: [DONE]\n\n", more=False)


def _event(chunk: dict[str, Any]) -> str:
    return f"data: {json.dumps(chunk, ensure_ascii=False, separators=(',', ':'))}\n\n"
