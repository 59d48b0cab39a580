"""Runs a plan and answers: one JSON value, or a stream in a dialect's framing.

Either way a client that leaves stops the work, wherever it is. The stream is written here and not
by sse-starlette: Ollama's lines and the disconnects of plain replies need this anyway, and that
would be a second way beside it; its signs of life come by the clock, also between tokens that
flow; and importing it replaces uvicorn's signal handler for the whole process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from subllm.server.errors import api_error
from subllm.server.framing import Framing
from subllm.server.job_stream import JobStream, until_disconnect
from subllm.server.jobs import Generated, TokenScores
from subllm.server.reply import Chunk, Reply
from subllm.server.trimming import Trimmer
from subllm.server.worker import EngineWorker

CLIENT_CLOSED_REQUEST = 499  # never seen by a client: it has left

Chunks = AsyncGenerator[Chunk, None]


async def chunks(worker: EngineWorker, reply: Reply) -> Chunks:
    """Everything of a reply in order. The first chunk comes after the engine's first
    event, so that a failure until then can still be an HTTP status."""
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
    async with JobStream(worker, plan.model.ref, plan.generations, draft) as generation:
        async for index, event in generation:
            if not opened:
                opened = True
                for chunk in reply.opening():
                    yield chunk
            if isinstance(event, Generated):
                token = trimmers[index](event.event) if trimmers else event.event
                if token.finish_reason is not None:
                    generation.drop(index)
                for chunk in reply.feed(index, token):
                    yield chunk
    if not opened:
        for chunk in reply.opening():
            yield chunk
    for chunk in reply.closing():
        yield chunk


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
    source = Source(chunks(worker, reply), request.receive, lambda: ended(reply))
    if framing is not None:
        # Wait a little for the first chunk: until then a failure has its own status.
        await source.peek(keep_alive)
        return ChunkStream(source, framing, keep_alive, headers)
    async with source:
        while await source.next() is not None:
            pass
        if source.gone:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        return JSONResponse(reply.whole(), headers=headers)


class Source:
    """Chunks until they end or the client leaves. Leaving the context ends the work."""

    def __init__(self, items: Chunks, receive: Receive, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._queue: asyncio.Queue[Chunk | BaseException | None] = asyncio.Queue()
        self._first: list[Chunk | None] = []  # what `peek` saw
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

    @property
    def ready(self) -> bool:
        """Whether `next` has something to return, or to raise, without waiting."""
        return bool(self._first) or not self._queue.empty()

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

    async def next(self, timeout: float | None = None) -> Chunk | None:
        """The next chunk; None at the end or when the client has left. Raises
        TimeoutError after `timeout` seconds, and what the work raises."""
        item = self._first.pop() if self._first else await self._get(timeout)
        return None if self._gone else item

    async def _get(self, timeout: float | None) -> Chunk | None:
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
        finally:
            self._ended()

    async def _until_gone(self, receive: Receive) -> None:
        await until_disconnect(receive)
        self._gone = True
        self._queue.put_nowait(None)


class ChunkStream(Response):
    """Chunks as they come, written as `framing` says; `keep_alive` seconds without one are
    filled by its sign of life. Those that wait are written at once: the connection is looked at
    between two writes, so that none goes to a client that has left."""

    def __init__(
        self, source: Source, framing: Framing, keep_alive: float, headers: Mapping[str, str]
    ) -> None:
        self.media_type = framing.media_type
        super().__init__(headers={**headers, "cache-control": "no-store"})
        del self.headers["content-length"]
        self._source = source
        self._framing = framing
        self._keep_alive = keep_alive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        framing = self._framing

        async def write(text: str, more: bool = True) -> None:
            body = text.encode()
            await send({"type": "http.response.body", "body": body, "more_body": more})

        text = ""
        async with self._source as source:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                while True:
                    if text and not source.ready:
                        await write(text)
                        text = ""
                    try:
                        chunk = await source.next(self._keep_alive)
                    except TimeoutError:
                        text = framing.waiting
                        continue
                    if chunk is None:
                        break
                    text += framing.chunk(chunk)
            except Exception as error:
                await write(text + framing.failure(api_error(error)), more=False)
                return
            if not source.gone:
                await write(text + framing.end, more=False)
