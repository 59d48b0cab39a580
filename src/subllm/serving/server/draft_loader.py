"""Gives engines the drafts that their requests want. Used by the engine thread alone.

A request begins at once and its draft is loaded after its first token, beside it. What is
wrong with a draft is its own matter: it is logged and shown, and the request goes on without.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from subllm.engine.request import Request
from subllm.errors import SubllmError
from subllm.serving.server.jobs import Job, ModelRef
from subllm.serving.server.pool import EnginePool, Slot

if TYPE_CHECKING:
    from subllm.engine.draft import Draft

log = logging.getLogger("subllm.server")


class DraftLoader:
    """`load` opens a model as a draft, on any thread, and raises as loading an engine does."""

    def __init__(self, load: Callable[[ModelRef], Draft], pool: EnginePool) -> None:
        self.load = load
        self._pool = pool

    def admit(self, slot: Slot, job: Job) -> Request:
        """The request of a job that begins on `slot`. Its draft is forgotten, and n-grams
        alone draft for it, where that was refused or those who run have another."""
        assert isinstance(job.work, Request)
        if job.draft is None:
            return job.work
        others = {other.draft for other in slot.jobs.values()} - {None, job.draft}
        if not others and job.draft not in slot.refused:
            return job.work
        job.draft = None
        return replace(job.work, speculation="ngram")

    def next(self) -> tuple[Slot, ModelRef] | None:
        """An engine that runs a request whose draft it has not, and that draft."""
        for slot in self._pool.slots():
            jobs = slot.jobs.values()
            wanted = next((job.draft for job in jobs if job.draft and job.begun), None)
            if wanted not in (None, slot.draft):
                return slot, wanted
        return None

    def make_room(self, slot: Slot, ref: ModelRef) -> bool:
        """Whether `ref` is to be loaded for `slot` now."""
        if not slot.engine.speculates:
            slot.refused.add(ref)
            self._go_on_without(slot, ref, "the backend cannot check drafts")
            return False
        if slot.draft is not None:
            self._pool.drop_draft(slot)
        if not self._pool.make_room_for_draft(ref, slot):
            reason = "there is no room for it in memory"
            log.info("%s does not draft for %s: %s", ref.name, slot.ref.name, reason)
            self._go_on_without(slot, ref, reason)  # until the next request
            return False
        return True

    def attach(self, slot: Slot, ref: ModelRef, take: Callable[[], Draft]) -> None:
        """Puts what `take` gives, or raises, beside the engine. Raises only what shows that
        the engine itself has failed."""
        try:
            draft = take()
        except SubllmError as error:
            self._refuse(slot, ref, str(error))
            return
        except Exception as error:
            log.exception("loading %s failed", ref.name)
            self._refuse(slot, ref, f"it could not be loaded ({type(error).__name__})")
            return
        if slot.closed:
            with contextlib.suppress(Exception):
                draft.backend.close()
            return
        try:
            self._pool.put_draft(ref, draft, slot)
        except BaseException as error:
            with contextlib.suppress(Exception):
                draft.backend.close()
            if not isinstance(error, SubllmError):
                raise
            self._refuse(slot, ref, str(error))

    def _refuse(self, slot: Slot, ref: ModelRef, reason: str) -> None:
        """Not tried again while this engine is loaded: a mended model is another version."""
        log.warning("%s does not draft for %s: %s", ref.name, slot.ref.name, reason)
        slot.refused.add(ref)
        self._go_on_without(slot, ref, reason)

    def _go_on_without(self, slot: Slot, ref: ModelRef, reason: str) -> None:
        for job in slot.jobs.values():
            if job.draft == ref:
                job.draft = None
        slot.draft_failure = f"{ref.name}: {reason}"
