"""The one thread that owns every engine: it steps and closes them; they load beside it.

Handlers submit jobs through a thread-safe queue and get events through each job's
sink. The thread goes in turns: a step of every engine that has work, cut so that a turn takes
about `STREAMING_TURN` seconds while any reply streams, whatever else is to be done. Waiting jobs
are served in order of arrival by model: when a model needs room and all loaded engines are busy,
the least recently used one takes no new work until it has run empty, so that nobody waits for
ever. One model loads at a time, on a thread of its own; a load that has begun is finished even
when every client has left.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, cast

from subllm.errors import EngineBusyError, EngineError, ServerError, SubllmError
from subllm.machine import give_memory_back
from subllm.runtime.request import Engine, Request, TokenEvent
from subllm.server.background import Load
from subllm.server.context import bounded, fit_to_context
from subllm.server.draft_loader import DraftLoader
from subllm.server.footprint import NOTHING, Footprint
from subllm.server.jobs import Failed, Generated, Job, JobEvent, ModelRef, TokenScores
from subllm.server.loaded import LoadedModel
from subllm.server.pool import EnginePool, Slot

if TYPE_CHECKING:
    from subllm.runtime.draft import Draft

log = logging.getLogger("subllm.server")

STREAMING_TURN = 0.1
"""Seconds that a turn of the engine thread may take while a reply streams."""

QUIET_TURN = 0.2
"""Seconds of a turn while none does: what is cancelled ends, and what comes begins, after it."""

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
    """Runs jobs on engines that `load(ref)` makes; see the module's docstring."""

    def __init__(
        self,
        load: Callable[[ModelRef], Engine],
        *,
        max_engines: int = 4,
        memory: int | None = None,
        max_open: int = 256,
        measure: Callable[[ModelRef], Footprint] = lambda ref: NOTHING,
        keep_alive: float = math.inf,
        preload: Sequence[ModelRef] = (),
        step_tokens: int | None = None,
        load_draft: Callable[[ModelRef], Draft] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`load`, `measure` and `load_draft` are called on other threads than `start`.

        memory       bytes that everything loaded may take; see `EnginePool`
        keep_alive   seconds that a model stays loaded which nobody uses, where no job says
        preload      models to be loaded at the start, which stay
        step_tokens  allowance of every step of an engine
        load_draft   opens a model that drafts for another; None: no model does
        clock        seconds, for limits of time and `keep_alive`
        """
        self._load = load
        self._step_tokens = step_tokens
        self._max_open = max_open
        self._pool = EnginePool(
            max_engines, measure, memory, keep_alive, {ref.name for ref in preload}
        )
        self._to_load = deque(preload)
        self._drafts = DraftLoader(load_draft or _no_draft, self._pool)
        self._inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._waiting: dict[ModelRef, deque[Job]] = {}  # in order of arrival
        self._loaded: tuple[LoadedModel, ...] = ()
        self._load_begun: Load | None = None
        self._clock = clock
        self._turn_began: float | None = None  # None: it waits for work
        self._turns = 0
        self._closed = 0  # engines, when memory was given back last
        self._unload_in: float | None = None  # seconds, while there is nothing to do
        self._unfinished: dict[str, Job] = {}  # submitted, not ended; any thread
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
        self._fail_all(_SHUTTING_DOWN)

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
            if len(self._unfinished) + len(jobs) > self._max_open:
                raise EngineBusyError(
                    f"{len(self._unfinished)} completions are running and waiting; "
                    "try again in a moment"
                )
            for job in jobs:
                if job.limits.total is not None:
                    job.until = self._clock() + job.limits.total
                self._unfinished[job.id] = job
                self._inbox.put(job)

    def cancel(self, job: Job) -> None:
        """Drop the job wherever it is. Never blocks, harmless when it has ended."""
        job.cancelled = True
        self._unfinished.pop(job.id, None)
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
        return len(self._unfinished)

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
        load = self._load_begun
        return None if load is None else load.ref.name

    def _fail_all(self, reason: str) -> None:
        for job in list(self._unfinished.values()):
            with contextlib.suppress(Exception):  # nobody is left out because of another
                self._deliver(job, Failed(ServerError(reason)))
            job.cancelled = True

    # Everything below runs on the engine thread.

    def _run(self) -> None:
        try:
            while self._take_messages():
                self._turn_began = self._clock()
                self._drop_cancelled()
                self._end_what_is_out_of_time()
                self._take_what_is_loaded()
                self._admit()
                self._take_a_turn()
                self._load_a_draft()
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
        load = self._load_begun
        busy = any(slot.jobs or slot.engine.has_work() for slot in self._pool.slots())
        ready = bool(self._waiting or self._to_load) if load is None else load.over
        block = not busy and not ready
        timeout = _LOOK_AGAIN if self._waiting else self._unload_in
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
                self._waiting.setdefault(message.model, deque()).append(message)

    def _drop_cancelled(self) -> None:
        for slot in self._pool.slots():
            for job in [job for job in slot.jobs.values() if job.cancelled]:
                del slot.jobs[job.id]
                try:
                    slot.engine.abort(job.id)
                except Exception:
                    self._crashed(slot)
                    break
        for ref, jobs in list(self._waiting.items()):
            kept = deque(job for job in jobs if not job.cancelled)
            if kept:
                self._waiting[ref] = kept
            else:
                del self._waiting[ref]

    def _end_what_is_out_of_time(self) -> None:
        now = self._clock()
        for slot in self._pool.slots():
            for job in [j for j in slot.jobs.values() if j.until is not None and j.until <= now]:
                job.until = None
                try:
                    slot.engine.abort(job.id, "length")
                except Exception:
                    self._crashed(slot)
                    break
        for jobs in self._waiting.values():
            for job in [job for job in jobs if job.until is not None and job.until <= now]:
                assert isinstance(job.work, Request)
                jobs.remove(job)
                prompt = len(job.work.prompt)
                event = TokenEvent(job.id, "", finish_reason="length", prompt_tokens=prompt)
                self._deliver(job, Generated(event))
        self._waiting = {ref: jobs for ref, jobs in self._waiting.items() if jobs}

    def _preload(self) -> None:
        ref = self._to_load.popleft()
        if self._pool.get(ref) is None:
            try:
                if self._pool.make_room(ref) is None:
                    self._load_begun = Load(ref, self._load, self._wake)
                else:
                    self._to_load.append(ref)
            except SubllmError as error:
                log.warning("%s is not preloaded: %s", ref.name, error)

    def _admit(self) -> None:
        """Move waiting jobs onto engines; begin to load a model that has none."""
        if self._to_load and self._load_begun is None:
            self._preload()
        held: set[str] = set()  # models that must run empty to make room
        may_load = self._load_begun is None
        for ref in list(self._waiting):
            if ref.name in held:
                continue
            slot = self._pool.get(ref)
            if slot is None and may_load:
                may_load = False
                try:
                    blocker = self._pool.make_room(ref)
                except SubllmError as error:
                    may_load = True
                    self._refuse(ref, error)
                    continue
                if blocker is None:
                    self._load_begun = Load(ref, self._load, self._wake)
                else:
                    held.add(blocker.ref.name)
            if slot is not None:
                for job in self._waiting.pop(ref):
                    if slot.closed:  # it failed on a job before this one: load it again
                        self._waiting.setdefault(ref, deque()).append(job)
                    else:
                        self._begin(slot, job)

    def _take_what_is_loaded(self) -> None:
        """A failure goes to every job that waits for the model."""
        load = self._load_begun
        if load is None or not load.over:
            return
        self._load_begun = None
        if load.slot is not None:
            try:
                self._drafts.attach(load.slot, load.ref, lambda: cast("Draft", load.take()))
            except Exception:
                self._crashed(load.slot)
            return
        failure: SubllmError
        try:
            self._pool.put(load.ref, cast(Engine, load.take()))
            return
        except SubllmError as error:
            failure = error
        except Exception:
            log.exception("loading %s failed", load.ref.name)
            failure = EngineError(f"{load.ref.name} could not be loaded; the server's log says why")
        if load.ref not in self._waiting:  # nobody would hear of it
            log.warning("%s is not loaded: %s", load.ref.name, failure)
        self._refuse(load.ref, failure)

    def _refuse(self, ref: ModelRef, failure: SubllmError) -> None:
        """To every job that waits for the model."""
        for job in self._waiting.pop(ref, ()):
            self._deliver(job, Failed(failure))

    def _begin(self, slot: Slot, job: Job) -> None:
        if job.cancelled:
            return
        try:
            slot.engine.add(self._request(slot, job))
            slot.jobs[job.id] = job
            if job.keep_alive is not None:
                slot.keep_alive = job.keep_alive
        except SubllmError as error:
            self._deliver(job, Failed(error))
        except Exception:
            slot.jobs[job.id] = job
            self._crashed(slot)

    def _request(self, slot: Slot, job: Job) -> Request:
        length = slot.engine.context_length
        if isinstance(job.work, Request):
            return bounded(self._drafts.admit(slot, job), length)
        fit_to_context(len(job.work.tokens), length, reply=False)
        return Request(job.id, job.work.tokens, score=job.work.top)

    def _take_a_turn(self) -> None:
        """One step of every engine that has work: they share the time of a turn."""
        busy = [slot for slot in self._pool.slots() if slot.jobs or slot.engine.has_work()]
        streams = any(job.begun for slot in busy for job in slot.jobs.values())
        turn = STREAMING_TURN if streams else QUIET_TURN
        for slot in busy:
            self._advance(slot, turn / len(busy))

    def _advance(self, slot: Slot, seconds: float) -> None:
        try:
            events = slot.engine.step(self._step_tokens, seconds) if slot.engine.has_work() else []
            for event in events:
                job = slot.jobs.get(event.request_id)
                if job is None:
                    continue
                if event.finish_reason is not None:
                    del slot.jobs[job.id]
                if isinstance(job.work, Request):
                    self._generated(job, event)
                else:
                    self._scored(job, event)
            if slot.jobs and not slot.engine.has_work():
                raise RuntimeError(f"the engine of {slot.ref.name} forgot {list(slot.jobs)}")
        except Exception:
            self._crashed(slot)

    def _generated(self, job: Job, event: TokenEvent) -> None:
        if not job.begun and job.limits.predict is not None:
            until = self._clock() + job.limits.predict
            job.until = until if job.until is None else min(until, job.until)
        job.begun = True
        self._deliver(job, Generated(event))

    def _scored(self, job: Job, event: TokenEvent) -> None:
        job.scores += event.logprobs
        if event.error is not None:
            self._deliver(job, Failed(event.error))
        elif event.finish_reason is not None:
            self._deliver(job, TokenScores((None, *job.scores)))

    def _unload_idle(self) -> None:
        left = self._pool.unload_idle(self._clock())
        self._unload_in = None if left is None else min(left, _LONGEST_SLEEP)
        if self._closed != self._pool.closed:
            self._closed = self._pool.closed
            give_memory_back()

    def _load_a_draft(self) -> None:
        found = self._drafts.next() if self._load_begun is None else None
        if found is None:
            return
        slot, ref = found
        try:
            if self._drafts.make_room(slot, ref):
                self._load_begun = Load(ref, self._drafts.load, self._wake, slot)
        except Exception:
            self._crashed(slot)

    def _wake(self) -> None:
        self._inbox.put(_WAKE)

    def _crashed(self, slot: Slot) -> None:
        """An engine that raised what it should not is not trusted again."""
        log.exception("the engine of %s failed", slot.ref.name)
        self._pool.close(slot)
        error = EngineError(
            f"the engine of {slot.ref.name} failed and was unloaded; "
            "send the request again (the server's log has the details)"
        )
        for job in slot.jobs.values():
            self._deliver(job, Failed(error))
        slot.jobs.clear()

    def _snapshot(self) -> None:
        loaded = []
        for slot in self._pool.slots():
            try:
                loaded.append(LoadedModel.of(slot))
            except Exception:
                self._crashed(slot)
        self._loaded = tuple(loaded)

    def _shut_down(self) -> None:
        with self._ending:  # whoever submits from here on hears it at once
            self._stopping = True
        self._fail_all(self._failure or _SHUTTING_DOWN)
        for slot in self._pool.slots():
            self._pool.close(slot)
        self._loaded = ()
        load, self._load_begun = self._load_begun, None
        if load is not None:
            with contextlib.suppress(Exception):
                load.drop()

    def _deliver(self, job: Job, event: JobEvent) -> None:
        if not job.cancelled:
            job.sink(event)
        if not isinstance(event, Generated) or event.event.finish_reason is not None:
            self._unfinished.pop(job.id, None)


def _no_draft(ref: ModelRef) -> NoReturn:
    raise EngineError(f"{ref.name} cannot be loaded as a draft here")
