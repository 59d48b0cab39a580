"""Runs a plan and answers: one JSON value, or a stream in a dialect's framing.

Either way a client that leaves stops the work, wherever it is. The stream is written here and not
by sse-starlette: Ollama's lines and the disconnects of plain replies need this anyway, and that
would be a second way beside it; its signs of life come by the clock, also between tokens that
flow; and importing it replaces uvicorn's signal handler for the whole process.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import FIRST_COMPLETED as ANY
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from subllm.serving.server.errors import api_error
from subllm.serving.server.framing import Framing
from subllm.serving.server.job_stream import JobStream, until_disconnect
from subllm.serving.server.jobs import Generated, TokenScores
from subllm.serving.server.reply import Chunk, Reply
from subllm.serving.server.trimming import Trimmer
from subllm.serving.server.worker import EngineWorker

CLIENT_CLOSED_REQUEST = 499  # never seen by a client: it has left

Batches = AsyncGenerator[list[Chunk], None]
Write = Callable[[list[Chunk]], Awaitable[None]]


async def batches(worker: EngineWorker, reply: Reply) -> Batches:
    """Everything of a reply in order, together what is there at once: the connection is looked at
    between two batches, so that hardly anything is written to a client that has left. The first
    comes after the engine's first event, so that a failure until then can still be an HTTP
    status."""
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
    work = Work(batches(worker, reply), request.receive, lambda: ended(reply))
    if framing is not None:
        # Wait a little for the first chunk: until then a failure has its own status.
        await work.begun(keep_alive)
        return ChunkStream(work, framing, keep_alive, headers)
    async with work:
        work.to(_nowhere)
        await work.over()
        if work.gone:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        return JSONResponse(reply.whole(), headers=headers)


async def _nowhere(chunks: list[Chunk]) -> None:
    pass


class Work:
    """A task that makes the chunks of a reply, and writes them, until they end or the client
    leaves. Leaving the context ends it."""

    def __init__(self, items: Batches, receive: Receive, ended: Callable[[], None]) -> None:
        self._ended = ended
        loop = asyncio.get_running_loop()
        self._begun: asyncio.Future[None] = loop.create_future()
        self._write: asyncio.Future[Write] = loop.create_future()
        # One task for all chunks: one for each, or one more to write them, would cost more than
        # the chunk.
        self._work = asyncio.ensure_future(self._run(items))
        self._watch = asyncio.ensure_future(until_disconnect(receive))

    async def __aenter__(self) -> Work:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watch.cancel()
        self._work.cancel()
        await asyncio.wait([self._work, self._watch])
        if not self._work.cancelled():
            self._work.exception()  # of one that nobody waits for, asyncio would tell the log

    @property
    def gone(self) -> bool:
        """Whether the client has left."""
        return self._watch.done()

    async def begun(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for the first chunks, which are kept. A failure before
        them ends the work and is raised."""
        try:
            await asyncio.wait([self._begun, self._watch], timeout=timeout, return_when=ANY)
            if self._work.done():
                self._work.result()
        except BaseException:
            await self.__aexit__()
            raise

    def to(self, write: Write) -> None:
        """Chunks go there, those that are kept first."""
        self._write.set_result(write)

    async def over(self, timeout: float | None = None) -> bool:
        """Wait up to `timeout` seconds for the end, or until the client has left. Whether one of
        them is there. Raises what the work raises."""
        await asyncio.wait([self._work, self._watch], timeout=timeout, return_when=ANY)
        if self.gone:
            return True
        if self._work.done():
            self._work.result()
            return True
        return False

    async def _run(self, items: Batches) -> None:
        write: Write | None = None
        try:
            async with contextlib.aclosing(items):
                async for chunks in items:
                    if write is None:
                        self._begun.set_result(None)
                        write = await self._write
                    if chunks:
                        await write(chunks)
        finally:
            if not self._begun.done():
                self._begun.set_result(None)
            self._ended()


class ChunkStream(Response):
    """Chunks as they come, written as `framing` says; `keep_alive` seconds without one are
    filled by its sign of life."""

    def __init__(
        self, work: Work, framing: Framing, keep_alive: float, headers: Mapping[str, str]
    ) -> None:
        self.media_type = framing.media_type
        super().__init__(headers={**headers, "cache-control": "no-store"})
        del self.headers["content-length"]
        self._work = work
        self._framing = framing
        self._keep_alive = keep_alive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        framing, clock = self._framing, asyncio.get_running_loop().time
        written = clock()

        async def write(text: str, more: bool = True) -> None:
            nonlocal written
            written = clock()
            body = text.encode()
            await send({"type": "http.response.body", "body": body, "more_body": more})

        async def write_chunks(chunks: list[Chunk]) -> None:
            await write("".join(map(framing.chunk, chunks)))

        async with self._work as work:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            work.to(write_chunks)
            try:
                while not await work.over(self._silence(written - clock())):
                    if clock() - written >= self._keep_alive:
                        await write(framing.waiting)
            except Exception as error:
                await write(framing.failure(api_error(error)), more=False)
                return
            if not work.gone:
                await write(framing.end, more=False)

    def _silence(self, since: float) -> float | None:
        """Seconds until a sign of life is due; `since` is 0 or less."""
        return max(0.0, since + self._keep_alive) if self._framing.waiting else None
