"""The handlers' side of the worker: jobs of one HTTP request as one async stream."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence

from starlette.types import Receive

from subllm.server.jobs import (
    Failed,
    Generated,
    GenerateWork,
    Job,
    JobEvent,
    ModelRef,
    ScoreWork,
    TokenScores,
)
from subllm.server.worker import EngineWorker


class JobStream:
    """All jobs of one HTTP request; `work[i]` is answered by events with index i.

    Use as an async context manager: leaving it cancels whatever still runs, whether
    the client left, an error came or everything is done.
    """

    def __init__(
        self,
        worker: EngineWorker,
        model: ModelRef,
        work: Sequence[GenerateWork | ScoreWork],
        draft: ModelRef | None = None,
    ) -> None:
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[int, JobEvent]] = asyncio.Queue()
        self._open: dict[int, Job] = {}
        group = uuid.uuid4().hex
        for index, item in enumerate(work):
            name = f"{group}-{index}"
            sink = _Sink(self._loop, self._queue, index)
            if isinstance(item, ScoreWork):
                job = Job(name, model, item, sink, draft)
            else:
                job = Job(name, model, item.request(name), sink, draft, item.limits)
                job.keep_alive = item.keep_alive
            self._open[index] = job

    async def __aenter__(self) -> JobStream:
        self._worker.submit(*self._open.values())
        return self

    async def __aexit__(self, *_: object) -> None:
        for job in self._open.values():
            self._worker.cancel(job)

    async def next(self) -> tuple[int, Generated | TokenScores] | None:
        """The next event with its index; None when all jobs have ended. Raises the
        error of the first job that fails."""
        while True:
            if not self._open:
                return None
            index, event = await self._queue.get()
            if index in self._open:
                break
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, TokenScores) or event.event.finish_reason is not None:
            del self._open[index]
        return index, event

    def drop(self, index: int) -> None:
        """Cancel one job; nothing more comes of it."""
        job = self._open.pop(index, None)
        if job is not None:
            self._worker.cancel(job)

    async def __aiter__(self) -> AsyncIterator[tuple[int, Generated | TokenScores]]:
        while (item := await self.next()) is not None:
            yield item


class _Sink:
    """Carries events from the engine thread into the event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        events: asyncio.Queue[tuple[int, JobEvent]],
        index: int,
    ) -> None:
        self._loop = loop
        self._events = events
        self._index = index

    def __call__(self, event: JobEvent) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits
            self._loop.call_soon_threadsafe(self._events.put_nowait, (self._index, event))


async def until_disconnect(receive: Receive) -> None:
    """Return when the client has closed the connection. The body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
