"""Jobs that wait for their models, and the models that are loaded for them.

Waiting jobs are served in order of arrival by model: when a model needs room and all loaded
engines are busy, the least recently used one takes no new work until it has run empty, so that
nobody waits for ever. One model loads at a time, on a thread of its own; a load that has begun is
finished even when every client has left.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from subllm.engine.request import Engine, Request, TokenEvent
from subllm.errors import EngineError, SubllmError
from subllm.serving.server.background import Load
from subllm.serving.server.draft_loader import DraftLoader
from subllm.serving.server.jobs import Failed, Generated, Job, ModelRef
from subllm.serving.server.open_jobs import OpenJobs
from subllm.serving.server.pool import EnginePool
from subllm.serving.server.turns import EngineTurns

if TYPE_CHECKING:
    from subllm.engine.draft import Draft

log = logging.getLogger("subllm.server")


class Admission:
    """Brings jobs to engines of `pool` that `load` makes. Used by the engine thread alone, but
    for `loading`."""

    def __init__(
        self,
        load: Callable[[ModelRef], Engine],
        pool: EnginePool,
        drafts: DraftLoader,
        turns: EngineTurns,
        jobs: OpenJobs,
        preload: Sequence[ModelRef],
        wake: Callable[[], None],
    ) -> None:
        """preload  models to be loaded before anybody asks for them
        wake     is called on the loading thread when a model is there
        """
        self._load = load
        self._pool = pool
        self._drafts = drafts
        self._turns = turns
        self._jobs = jobs
        self._to_load = deque(preload)
        self._wake = wake
        self._waiting: dict[ModelRef, deque[Job]] = {}  # in order of arrival
        self._load_begun: Load | None = None

    @property
    def waits(self) -> bool:
        """Whether any job does."""
        return bool(self._waiting)

    @property
    def ready(self) -> bool:
        """Whether there is something to do at once."""
        load = self._load_begun
        return bool(self._waiting or self._to_load) if load is None else load.over

    @property
    def loading(self) -> str | None:
        """The model that is; any thread may ask."""
        load = self._load_begun
        return None if load is None else load.ref.name

    def add(self, job: Job) -> None:
        self._waiting.setdefault(job.model, deque()).append(job)

    def drop_cancelled(self) -> None:
        for ref, jobs in list(self._waiting.items()):
            kept = deque(job for job in jobs if not job.cancelled)
            if kept:
                self._waiting[ref] = kept
            else:
                del self._waiting[ref]

    def end_what_is_out_of_time(self, now: float) -> None:
        for jobs in self._waiting.values():
            for job in [job for job in jobs if job.is_over(now)]:
                assert isinstance(job.work, Request)
                jobs.remove(job)
                prompt = len(job.work.prompt) + len(job.work.begun)
                event = TokenEvent(job.id, "", finish_reason="length", prompt_tokens=prompt)
                self._jobs.deliver(job, Generated(event))
        self._waiting = {ref: jobs for ref, jobs in self._waiting.items() if jobs}

    def take_what_is_loaded(self) -> None:
        """A failure goes to every job that waits for the model."""
        load = self._load_begun
        if load is None or not load.over:
            return
        self._load_begun = None
        if load.slot is not None:
            try:
                self._drafts.attach(load.slot, load.ref, lambda: cast("Draft", load.take()))
            except Exception:
                self._turns.crashed(load.slot)
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

    def admit(self) -> None:
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
                        self.add(job)
                    else:
                        self._turns.begin(slot, job)

    def load_a_draft(self) -> None:
        found = self._drafts.next() if self._load_begun is None else None
        if found is None:
            return
        slot, ref = found
        try:
            if self._drafts.make_room(slot, ref):
                self._load_begun = Load(ref, self._drafts.load, self._wake, slot)
        except Exception:
            self._turns.crashed(slot)

    def close(self) -> None:
        """Frees what is being loaded, once it is."""
        load, self._load_begun = self._load_begun, None
        if load is not None:
            with contextlib.suppress(Exception):
                load.drop()

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

    def _refuse(self, ref: ModelRef, failure: SubllmError) -> None:
        """To every job that waits for the model."""
        for job in self._waiting.pop(ref, ()):
            self._jobs.deliver(job, Failed(failure))
