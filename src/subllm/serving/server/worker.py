"""The one thread that owns every engine: it steps and closes them; they load beside it.

Handlers submit jobs through a thread-safe queue and get events through each job's
sink. The thread goes in turns: a step of every engine that has work, cut so that a turn takes
about `turns.STREAMING_TURN` seconds while any reply streams, whatever else is to be done.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from subllm.errors import EngineError, ServerError
from subllm.machine import give_memory_back
from subllm.serving.server.admission import Admission
from subllm.serving.server.draft_loader import DraftLoader
from subllm.serving.server.jobs import Job, ModelRef
from subllm.serving.server.loaded import LoadedModel
from subllm.serving.server.open_jobs import OpenJobs
from subllm.serving.server.pool import EnginePool
from subllm.serving.server.turns import EngineTurns
from subllm.serving.server.worker_config import Bounds, Loading

log = logging.getLogger("subllm.server")

HANGS_AFTER = 30.0
"""Seconds after which a turn that does not end is a fault."""

_LOOK_AGAIN = 0.05  # seconds, while jobs wait that may run out of time

_LONGEST_SLEEP = 3600.0  # seconds, more than which a queue may refuse

_STOP = object()
_WAKE = object()
_SHUTTING_DOWN = "the server is shutting down; start it again with 'subllm serve'"
_FAILED = (
    "the server's engine thread has failed, its log says why; "
    "stop the server with 'subllm stop' and start it again"
)


@dataclass(frozen=True)
class _Unload:
    name: str


class EngineWorker:
    """Runs jobs on engines that `loading` makes; see the module's docstring."""

    def __init__(
        self,
        loading: Loading,
        bounds: Bounds,
        *,
        preload: Sequence[ModelRef] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        preload  models to be loaded at the start, which stay
        clock    seconds, for limits of time and `bounds.keep_alive`
        """
        pinned = {ref.name for ref in preload}
        self._pool = EnginePool(
            bounds.engines, loading.measure, bounds.memory, bounds.keep_alive, pinned
        )
        self._jobs = OpenJobs(bounds.jobs)
        drafts = DraftLoader(loading.draft or _no_draft, self._pool)
        self._engines = EngineTurns(self._pool, drafts, self._jobs, clock, bounds.step_tokens)
        self._admission = Admission(
            loading.engine, self._pool, drafts, self._engines, self._jobs, preload, self._wake
        )
        self._inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._loaded: tuple[LoadedModel, ...] = ()
        self._clock = clock
        self._turn_began: float | None = None  # None: it waits for work
        self._turns = 0
        self._closed = 0  # engines, when memory was given back last
        self._let_go = loading.let_go
        self._unload_in: float | None = None  # seconds, while there is nothing to do
        self._stopping = False
        self._failure: str | None = None
        self._ending = threading.Lock()  # between submitting a job and the end of the thread
        self._thread = threading.Thread(target=self._run, name="subllm-engines", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def interrupt(self) -> None:
        """Fail what runs and waits, now, whatever the engine thread is busy with; begin
        to stop. Never blocks."""
        self._stopping = True
        self._inbox.put(_STOP)
        self._jobs.fail_all(_SHUTTING_DOWN)

    def stop(self, timeout: float = 5.0) -> None:
        """`interrupt`, then wait up to `timeout` seconds for the engines to be closed and
        the thread to end."""
        self.interrupt()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def submit(self, *jobs: Job) -> None:
        """All of `jobs` or none. Raises ServerError once the worker is stopping or has
        failed, EngineBusyError when that many more may not wait."""
        with self._ending:
            if self._stopping:
                raise ServerError(self._failure or _SHUTTING_DOWN)
            self._jobs.add(*jobs)
            for job in jobs:
                if job.limits.total is not None:
                    job.until = self._clock() + job.limits.total
                self._inbox.put(job)

    def cancel(self, job: Job) -> None:
        """Drop the job wherever it is. Never blocks, harmless when it has ended."""
        job.cancelled = True
        self._jobs.forget(job)
        self._wake()

    def unload(self, name: str) -> None:
        """Unload the model of that name once nobody uses it, if it is loaded. Never blocks."""
        self._inbox.put(_Unload(name))

    def seconds_left(self, model: LoadedModel) -> float:
        """Until it is unloaded if nobody uses it from now on; math.inf: it stays."""
        if model.unload_at is None:
            return model.keep_alive
        return max(0.0, model.unload_at - self._clock())

    @property
    def loaded(self) -> tuple[LoadedModel, ...]:
        return self._loaded

    @property
    def open(self) -> int:
        """Jobs that run and wait, of all models."""
        return len(self._jobs)

    @property
    def failure(self) -> str | None:
        """Why no request will ever be served again; None while all is well."""
        return self._failure

    @property
    def hang(self) -> str | None:
        """Why nothing moves, while the engine thread does not come back from a turn."""
        began = self._turn_began
        seconds = 0.0 if began is None else self._clock() - began
        if seconds < HANGS_AFTER:
            return None
        return (
            f"the server's engine thread has not come back for {seconds:.0f} seconds; if that "
            "goes on, stop the server with 'subllm stop' and start it again"
        )

    @property
    def loading(self) -> str | None:
        return self._admission.loading

    # Everything below runs on the engine thread.

    def _run(self) -> None:
        try:
            while self._take_messages():
                self._turn_began = self._clock()
                self._drop_cancelled()
                self._end_what_is_out_of_time()
                self._admission.take_what_is_loaded()
                self._admission.admit()
                self._engines.take()
                self._admission.load_a_draft()
                self._unload_idle()
                self._snapshot()
                self._turn_began = None
                self._turns += 1
        except BaseException:
            log.exception("the engine thread failed")
            self._failure = _FAILED
        finally:
            self._turn_began = None
            self._shut_down()

    def _take_messages(self) -> bool:
        """Empty the inbox, waiting for a message when there is nothing to do."""
        block = not self._engines.busy and not self._admission.ready
        timeout = _LOOK_AGAIN if self._admission.waits else self._unload_in
        while True:
            try:
                message = self._inbox.get(block, timeout)
            except queue.Empty:
                return not self._stopping
            block = False
            if message is _STOP:
                return False
            if isinstance(message, _Unload):
                self._pool.let_go(message.name)
            if isinstance(message, Job):
                self._admission.add(message)

    def _drop_cancelled(self) -> None:
        self._engines.drop_cancelled()
        self._admission.drop_cancelled()

    def _end_what_is_out_of_time(self) -> None:
        self._engines.end_what_is_out_of_time()
        self._admission.end_what_is_out_of_time(self._clock())

    def _unload_idle(self) -> None:
        left = self._pool.unload_idle(self._clock())
        self._unload_in = None if left is None else min(left, _LONGEST_SLEEP)
        if self._closed != self._pool.closed:
            self._closed = self._pool.closed
            idle = not (self._pool.slots() or self._admission.waits or self._admission.loading)
            if idle:
                self._let_go()
            give_memory_back(collect=idle)

    def _wake(self) -> None:
        self._inbox.put(_WAKE)

    def _snapshot(self) -> None:
        loaded = []
        for slot in self._pool.slots():
            try:
                loaded.append(LoadedModel.of(slot))
            except Exception:
                self._engines.crashed(slot)
        self._loaded = tuple(loaded)

    def _shut_down(self) -> None:
        with self._ending:  # whoever submits from here on hears it at once
            self._stopping = True
        self._jobs.fail_all(self._failure or _SHUTTING_DOWN)
        for slot in self._pool.slots():
            self._pool.close(slot)
        self._loaded = ()
        self._admission.close()


def _no_draft(ref: ModelRef) -> NoReturn:
    raise EngineError(f"{ref.name} cannot be loaded as a draft here")
