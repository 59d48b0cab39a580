"""Runs a plan and answers: one JSON value, or a stream in a dialect's framing. Either way a client
that leaves stops the work, wherever it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.types import Receive

from subllm.serving.server.errors import api_error
from subllm.serving.server.framing import Framing
from subllm.serving.server.job_stream import JobStream, until_disconnect
from subllm.serving.server.jobs import Generated, TokenScores
from subllm.serving.server.reply import Chunk, Reply
from subllm.serving.server.trimming import Trimmer
from subllm.serving.server.worker import EngineWorker

CLIENT_CLOSED_REQUEST = 499  # never seen by a client: it has left

Batches = AsyncGenerator[list[Chunk], None]


async def batches(worker: EngineWorker, reply: Reply, ended: Callable[[Reply], None]) -> Batches:
    """Everything of a reply in order, together what is there at once: the connection is looked at
    between two batches, so that hardly anything is written to a client that has left. The first
    comes after the engine's first event, so that a failure until then can still be an HTTP
    status. `ended` is told at the end, however it comes."""
    try:
        plan = reply.plan
        if plan.scores:
            async with JobStream(worker, plan.model.ref, plan.scores) as scoring:
                async for index, event in scoring:
                    if isinstance(event, TokenScores):
                        # Thousands of tokens have their texts looked up: streams go on meanwhile.
                        await asyncio.to_thread(reply.scored, index, event.logprobs)
        opened = False
        draft = plan.drafting.draft
        trimmers = [Trimmer(plan.trim) for _ in plan.generations] if plan.trim else []
        made: list[Chunk] = []
        async with JobStream(worker, plan.model.ref, plan.generations, draft) as generation:
            async for index, event in generation:
                if not opened:
                    opened = True
                    made = reply.opening()
                if isinstance(event, Generated):
                    token = trimmers[index](event.event) if trimmers else event.event
                    if token.finish_reason is not None:
                        generation.drop(index)
                    made += reply.feed(index, token)
                if not generation.ready:
                    yield made
                    made = []
        if not opened:
            made = reply.opening()
        yield made + reply.closing()
    finally:
        ended(reply)


async def answer(
    request: Request,
    worker: EngineWorker,
    reply: Reply,
    framing: Framing | None,
    *,
    keep_alive: float,
    ended: Callable[[Reply], None],
) -> Response:
    """`framing` None asks for one JSON value. Raises what the work raises before its first
    chunk, ApiError and SubllmError. `ended` is told once the work has, however it did."""
    headers = {
        "x-subllm-model": reply.plan.route.model,
        "x-subllm-route": reply.plan.route.reason,
    }
    if draft := reply.plan.drafting.draft:
        headers["x-subllm-draft"] = draft.name
    items = batches(worker, reply, ended)
    if framing is not None:
        stream = Stream(items, framing)
        # Wait a little for the first chunk: until then a failure has its own status.
        await stream.begun(request.receive, keep_alive)
        return framing.response(stream, headers, keep_alive)
    work = asyncio.ensure_future(_drain(items))
    try:
        if not await _done(work, request.receive):
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        return JSONResponse(reply.whole(), headers=headers)
    finally:
        await _end(work)


class Stream:
    """What a stream sends, as `framing` says. The work for it begins at once."""

    def __init__(self, items: Batches, framing: Framing) -> None:
        self._items = items
        self._framing = framing
        self._first = asyncio.ensure_future(anext(items))
        self._taken = False  # the first one
        self._over = False

    async def begun(self, receive: Receive, timeout: float) -> None:
        """Wait up to `timeout` seconds for the first batch, which is kept, or until the client has
        left. A failure before it ends the work and is raised."""
        try:
            await _done(self._first, receive, timeout)
        except BaseException:
            await self.aclose()
            raise

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        """A batch, the end or what tells of a failure. A batch is one piece, since a server that
        writes each of its chunks to a client that has left would say so for each."""
        try:
            while not self._over:
                if chunks := await self._next():
                    return b"".join(map(self._framing.chunk, chunks))
        except StopAsyncIteration:
            self._over = True
            if self._framing.end:
                return self._framing.end
        except Exception as error:
            self._over = True
            return self._framing.failure(api_error(error))
        raise StopAsyncIteration

    async def _next(self) -> list[Chunk]:
        if self._taken:
            return await anext(self._items)
        self._taken = True
        return await self._first

    async def aclose(self) -> None:
        """Ends the work."""
        await _end(self._first)
        await self._items.aclose()


async def _drain(items: Batches) -> None:
    async with contextlib.aclosing(items):
        async for _ in items:
            pass


async def _done(work: asyncio.Future[Any], receive: Receive, timeout: float | None = None) -> bool:
    """Wait up to `timeout` seconds for `work`, or until the client has left. Whether it is done;
    raises what it raises."""
    watch = asyncio.ensure_future(until_disconnect(receive))
    try:
        await asyncio.wait([work, watch], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watch.cancel()
    if work.done():
        work.result()
    return work.done()


async def _end(work: asyncio.Future[Any]) -> None:
    work.cancel()
    await asyncio.wait([work])
    if not work.cancelled():
        work.exception()  # of one that nobody waits for, asyncio would tell the log
