"""The one thread that owns every engine: it loads, steps, scores and closes them.

Handlers submit jobs through a thread-safe queue and get events through each job's
sink. Waiting jobs are served in order of arrival by model: when a model needs room
and all loaded engines are busy, the least recently used one takes no new work until
it has run empty, so that nobody waits for ever. A load that has begun is finished
even when every client has left.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from subllm.errors import EngineBusyError, EngineError, ServerError, SubllmError
from subllm.runtime.request import Engine, Request
from subllm.server.context import bounded, fit_to_context
from subllm.server.draft_loader import DraftLoader
from subllm.server.jobs import Failed, Generated, Job, JobEvent, ModelRef, TokenScores
from subllm.server.pool import EnginePool, Slot

if TYPE_CHECKING:
    from subllm.runtime.draft import Draft

log = logging.getLogger("subllm.server")

_STOP = object()
_WAKE = object()
_SHUTTING_DOWN = "the server is shutting down; start it again with 'subllm serve'"
_FAILED = (
    "the server's engine thread has failed, its log says why; "
    "stop the server with 'subllm stop' and start it again"
)


@dataclass(frozen=True)
class LoadedModel:
    """A snapshot for /health: bytes resident, requests running on it, and what was drafted
    for it since it was loaded: tokens by source ("ngram", "draft"), and how many of them the
    model accepted. `draft_failure` tells which model does not draft and why."""

    name: str
    resident_bytes: int
    active: int
    draft: str | None = None
    draft_failure: str | None = None
    drafted: Mapping[str, tuple[int, int]] = field(default_factory=dict)


class EngineWorker:
    """Runs jobs on engines that `load(ref)` makes; see the module's docstring."""

    def __init__(
        self,
        load: Callable[[ModelRef], Engine],
        *,
        max_engines: int = 4,
        max_bytes: int | None = None,
        max_open: int = 256,
        estimate: Callable[[ModelRef], int] = lambda ref: 0,
        kv_bytes: int | None = None,
        step_tokens: int | None = None,
        load_draft: Callable[[ModelRef], Draft] | None = None,
    ) -> None:
        """kv_bytes     KV memory that the loaded engines share; see `EnginePool`
        step_tokens  allowance of every step of an engine
        load_draft   opens a model that drafts for another; None: no model does
        """
        self._load = load
        self._step_tokens = step_tokens
        self._max_open = max_open
        self._pool = EnginePool(max_engines, max_bytes, estimate, kv_bytes)
        self._drafts = DraftLoader(load_draft or _no_draft, self._pool)
        self._inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._waiting: dict[ModelRef, deque[Job]] = {}  # in order of arrival
        self._loaded: tuple[LoadedModel, ...] = ()
        self._loading: str | None = None
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
                self._unfinished[job.id] = job
                self._inbox.put(job)

    def cancel(self, job: Job) -> None:
        """Drop the job wherever it is. Never blocks, harmless when it has ended."""
        job.cancelled = True
        self._unfinished.pop(job.id, None)
        self._inbox.put(_WAKE)

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
    def loading(self) -> str | None:
        return self._loading

    def _fail_all(self, reason: str) -> None:
        for job in list(self._unfinished.values()):
            with contextlib.suppress(Exception):  # nobody is left out because of another
                self._deliver(job, Failed(ServerError(reason)))
            job.cancelled = True

    # Everything below runs on the engine thread.

    def _run(self) -> None:
        try:
            while self._take_messages():
                self._drop_cancelled()
                self._admit()
                for slot in self._pool.slots():
                    self._advance(slot)
                self._attach_a_draft()
                self._snapshot()
        except BaseException:
            log.exception("the engine thread failed")
            self._failure = _FAILED
        finally:
            self._shut_down()

    def _take_messages(self) -> bool:
        """Empty the inbox, waiting for a message when there is nothing to do."""
        block = not self._waiting and not any(
            slot.scores or slot.jobs or slot.engine.has_work() for slot in self._pool.slots()
        )
        while True:
            try:
                message = self._inbox.get(block)
            except queue.Empty:
                return not self._stopping
            block = False
            if message is _STOP:
                return False
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

    def _admit(self) -> None:
        """Move waiting jobs onto engines, loading at most one engine."""
        held: set[str] = set()  # models that must run empty to make room
        may_load = True
        for ref in list(self._waiting):
            if ref.name in held:
                continue
            slot = self._pool.get(ref)
            if slot is None and may_load:
                may_load = False
                blocker = self._pool.make_room(ref)
                if blocker is None:
                    slot = self._open(ref)
                else:
                    held.add(blocker.ref.name)
            if slot is not None:
                for job in self._waiting.pop(ref):
                    if slot.closed:  # it failed on a job before this one: load it again
                        self._waiting.setdefault(ref, deque()).append(job)
                    else:
                        self._begin(slot, job)

    def _open(self, ref: ModelRef) -> Slot | None:
        """Load an engine; a failure goes to every job that waits for it."""
        self._loading = ref.name
        try:
            return self._pool.put(ref, self._load(ref))
        except SubllmError as error:
            failure = error
        except Exception:
            log.exception("loading %s failed", ref.name)
            failure = EngineError(f"{ref.name} could not be loaded; the server's log says why")
        finally:
            self._loading = None
        for job in self._waiting.pop(ref):
            self._deliver(job, Failed(failure))
        return None

    def _begin(self, slot: Slot, job: Job) -> None:
        if job.cancelled:
            return
        try:
            if isinstance(job.work, Request):
                request = self._drafts.admit(slot, job)
                slot.engine.add(bounded(request, slot.engine.context_length))
                slot.jobs[job.id] = job
            else:
                fit_to_context(len(job.work.tokens), slot.engine.context_length, reply=False)
                slot.scores.append(job)
        except SubllmError as error:
            self._deliver(job, Failed(error))
        except Exception:
            slot.jobs[job.id] = job
            self._crashed(slot)

    def _advance(self, slot: Slot) -> None:
        """One step of one engine, then at most one score: engines take turns."""
        try:
            events = slot.engine.step(self._step_tokens) if slot.engine.has_work() else []
            for event in events:
                job = slot.jobs.get(event.request_id)
                if job is None:
                    continue
                job.begun = True
                if event.finish_reason is not None:
                    del slot.jobs[job.id]
                self._deliver(job, Generated(event))
            if slot.jobs and not slot.engine.has_work():
                raise RuntimeError(f"the engine of {slot.ref.name} forgot {list(slot.jobs)}")
            if slot.scores:
                self._score(slot, slot.scores.popleft())
        except Exception:
            self._crashed(slot)

    def _attach_a_draft(self) -> None:
        found = self._drafts.next()
        if found is None:
            return
        slot, ref = found
        self._loading = ref.name
        try:
            self._drafts.attach(slot, ref)
        except Exception:
            self._crashed(slot)
        finally:
            self._loading = None

    def _score(self, slot: Slot, job: Job) -> None:
        assert not isinstance(job.work, Request)
        if job.cancelled:
            return
        try:
            scores = slot.engine.score(job.work.tokens, job.work.top, lambda: job.cancelled)
        except SubllmError as error:
            self._deliver(job, Failed(error))
        except Exception:
            slot.scores.appendleft(job)
            raise
        else:
            self._deliver(job, TokenScores(tuple(scores)))

    def _crashed(self, slot: Slot) -> None:
        """An engine that raised what it should not is not trusted again."""
        log.exception("the engine of %s failed", slot.ref.name)
        self._pool.close(slot)
        error = EngineError(
            f"the engine of {slot.ref.name} failed and was unloaded; "
            "send the request again (the server's log has the details)"
        )
        for job in [*slot.jobs.values(), *slot.scores]:
            self._deliver(job, Failed(error))
        slot.jobs.clear()
        slot.scores.clear()

    def _snapshot(self) -> None:
        loaded = []
        for slot in self._pool.slots():
            try:
                loaded.append(_look(slot))
            except Exception:
                self._crashed(slot)
        self._loaded = tuple(loaded)

    def _shut_down(self) -> None:
        with self._ending:  # whoever submits from here on hears it at once
            self._stopping = True
        self._fail_all(self._failure or _SHUTTING_DOWN)
        for slot in self._pool.slots():
            self._pool.close(slot)
        self._loaded, self._loading = (), None

    def _deliver(self, job: Job, event: JobEvent) -> None:
        if not job.cancelled:
            job.sink(event)
        if not isinstance(event, Generated) or event.event.finish_reason is not None:
            self._unfinished.pop(job.id, None)


def _look(slot: Slot) -> LoadedModel:
    return LoadedModel(
        slot.ref.name,
        slot.engine.resident_bytes,
        len(slot.jobs) + len(slot.scores),
        slot.draft.name if slot.draft else None,
        slot.draft_failure,
        {
            source: (counts.drafted, counts.accepted)
            for source, counts in slot.engine.speculation.sources.items()
        },
    )


def _no_draft(ref: ModelRef) -> NoReturn:
    raise EngineError(f"{ref.name} cannot be loaded as a draft here")
