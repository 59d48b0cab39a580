"""The handlers' side of the worker: jobs of one HTTP request as one async stream."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Sequence
from functools import partial

from starlette.types import Receive

from subllm.serving.server.jobs import (
    Failed,
    Generated,
    GenerateWork,
    Job,
    JobEvent,
    ModelRef,
    ScoreWork,
    TokenScores,
)
from subllm.serving.server.worker import EngineWorker


class JobStream:
    """All jobs of one HTTP request; `work[i]` is answered by events with index i.

    Use as an async context manager: leaving it cancels whatever still runs, whether
    the client left, an error came or everything is done. Iterating gives each event with its
    index, until all jobs have ended, and raises the error of the first that fails.
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
        # Plain, where a queue would do: this runs for every token of every stream.
        self._events: deque[tuple[int, JobEvent]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._open: dict[int, Job] = {}
        group = uuid.uuid4().hex
        for index, item in enumerate(work):
            name = f"{group}-{index}"
            sink = partial(self._from_thread, index)
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

    @property
    def ready(self) -> bool:
        """Whether another event has come. Of one that fails nothing is said."""
        while self._events and self._events[0][0] not in self._open:
            self._events.popleft()
        return bool(self._events) and not isinstance(self._events[0][1], Failed)

    def __aiter__(self) -> JobStream:
        return self

    async def __anext__(self) -> tuple[int, Generated | TokenScores]:
        while self._open:
            while not self._events:
                self._waiter = self._loop.create_future()
                await self._waiter
            index, event = self._events.popleft()
            if index not in self._open:
                continue
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, TokenScores) or event.event.finish_reason is not None:
                del self._open[index]
            return index, event
        raise StopAsyncIteration

    def drop(self, index: int) -> None:
        """Cancel one job; nothing more comes of it."""
        job = self._open.pop(index, None)
        if job is not None:
            self._worker.cancel(job)

    def _from_thread(self, index: int, event: JobEvent) -> None:
        """Called by the engine thread."""
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits
            self._loop.call_soon_threadsafe(self._take, index, event)

    def _take(self, index: int, event: JobEvent) -> None:
        self._events.append((index, event))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def until_disconnect(receive: Receive) -> None:
    """Return when the client has closed the connection. The body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
