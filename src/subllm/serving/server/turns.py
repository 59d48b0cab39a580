"""What runs on the loaded engines: jobs begin there, and take their steps in turns."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from subllm.engine.request import Request, TokenEvent
from subllm.errors import DeviceError, EngineError, SubllmError
from subllm.serving.server.context import bounded, fit_to_context
from subllm.serving.server.draft_loader import DraftLoader
from subllm.serving.server.jobs import Failed, Generated, Job, TokenScores
from subllm.serving.server.open_jobs import OpenJobs
from subllm.serving.server.pool import EnginePool, Slot

log = logging.getLogger("subllm.server")

STREAMING_TURN = 0.1
"""Seconds that a turn of the engine thread may take while a reply streams."""

QUIET_TURN = 0.2
"""Seconds of a turn while none does: what is cancelled ends, and what comes begins, after it."""


class EngineTurns:
    """Steps the engines of `pool`; `step_tokens` is the allowance of every step. Used by the
    engine thread alone."""

    def __init__(
        self,
        pool: EnginePool,
        drafts: DraftLoader,
        jobs: OpenJobs,
        clock: Callable[[], float],
        step_tokens: int | None,
    ) -> None:
        self._pool = pool
        self._drafts = drafts
        self._jobs = jobs
        self._clock = clock
        self._step_tokens = step_tokens

    @property
    def busy(self) -> list[Slot]:
        return [slot for slot in self._pool.slots() if slot.jobs or slot.engine.has_work()]

    def begin(self, slot: Slot, job: Job) -> None:
        if job.cancelled:
            return
        try:
            slot.engine.add(self._request(slot, job))
            slot.jobs[job.id] = job
            if job.keep_alive is not None:
                slot.keep_alive = job.keep_alive
        except SubllmError as error:
            self._jobs.deliver(job, Failed(error))
        except Exception:
            slot.jobs[job.id] = job
            self.crashed(slot)

    def take(self) -> None:
        """One step of every engine that has work: they share the time of a turn."""
        busy = self.busy
        streams = any(job.begun for slot in busy for job in slot.jobs.values())
        turn = STREAMING_TURN if streams else QUIET_TURN
        for slot in busy:
            self._step(slot, turn / len(busy))

    def drop_cancelled(self) -> None:
        for slot in self._pool.slots():
            for job in [job for job in slot.jobs.values() if job.cancelled]:
                del slot.jobs[job.id]
                try:
                    slot.engine.abort(job.id)
                except Exception:
                    self.crashed(slot)
                    break

    def end_what_is_out_of_time(self) -> None:
        now = self._clock()
        for slot in self._pool.slots():
            for job in [job for job in slot.jobs.values() if job.is_over(now)]:
                job.until = None
                try:
                    slot.engine.abort(job.id, "length")
                except Exception:
                    self.crashed(slot)
                    break

    def crashed(self, slot: Slot) -> None:
        """An engine that raised what it should not is not trusted again. What a GPU fails with
        is nobody's secret."""
        failure = sys.exception()
        if isinstance(failure, DeviceError):
            error = EngineError(f"{slot.ref.name} was unloaded: {failure}")
            log.error("%s", error)
        else:
            error = EngineError(
                f"the engine of {slot.ref.name} failed and was unloaded; "
                "send the request again (the server's log has the details)"
            )
            log.exception("the engine of %s failed", slot.ref.name)
        self._pool.close(slot)
        for job in slot.jobs.values():
            self._jobs.deliver(job, Failed(error))
        slot.jobs.clear()

    def _request(self, slot: Slot, job: Job) -> Request:
        length = slot.engine.context_length
        if isinstance(job.work, Request):
            return bounded(self._drafts.admit(slot, job), length)
        fit_to_context(len(job.work.tokens), length, reply=False)
        return Request(job.id, job.work.tokens, score=job.work.top)

    def _step(self, slot: Slot, seconds: float) -> None:
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
            self.crashed(slot)

    def _generated(self, job: Job, event: TokenEvent) -> None:
        if not job.begun and job.limits.predict is not None:
            until = self._clock() + job.limits.predict
            job.until = until if job.until is None else min(until, job.until)
        job.begun = True
        self._jobs.deliver(job, Generated(event))

    def _scored(self, job: Job, event: TokenEvent) -> None:
        job.scores += event.logprobs
        if event.error is not None:
            self._jobs.deliver(job, Failed(event.error))
        elif event.finish_reason is not None:
            self._jobs.deliver(job, TokenScores((None, *job.scores)))
