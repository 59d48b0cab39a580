"""The loaded engines, least recently used first. Used by the engine thread alone."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from subllm.errors import SubllmError
from subllm.runtime.request import Engine
from subllm.server.jobs import Job, ModelRef

if TYPE_CHECKING:
    from subllm.runtime.draft import Draft

log = logging.getLogger("subllm.server")


@dataclass(eq=False)
class Slot:
    """One loaded engine and the jobs that run on it.

    draft          the model that drafts for it
    draft_failure  why the last one that was wanted does not
    refused        models that are not to be tried again
    """

    ref: ModelRef
    engine: Engine
    jobs: dict[str, Job] = field(default_factory=dict)
    closed: bool = False
    draft: ModelRef | None = None
    draft_failure: str | None = None
    refused: set[ModelRef] = field(default_factory=set)

    @property
    def idle(self) -> bool:
        return not self.jobs


class EnginePool:
    """At most `max_engines` engines and, when several are loaded, `max_bytes` bytes. The draft
    of an engine is a part of it: it counts in bytes, and goes before anybody has to wait.

    `estimate` tells the bytes of a model before it is loaded. `kv_bytes` of KV memory are
    shared evenly by the engines that are loaded; None leaves each what it was made with.
    """

    def __init__(
        self,
        max_engines: int,
        max_bytes: int | None,
        estimate: Callable[[ModelRef], int],
        kv_bytes: int | None = None,
    ) -> None:
        self._max_engines = max_engines
        self._max_bytes = max_bytes
        self._estimate = estimate
        self._kv_bytes = kv_bytes
        self._slots: dict[str, Slot] = {}  # by name, in order of use

    def slots(self) -> list[Slot]:
        return list(self._slots.values())

    def get(self, ref: ModelRef) -> Slot | None:
        """The slot of exactly this version, now the most recently used."""
        slot = self._slots.get(ref.name)
        if slot is None or slot.ref != ref:
            return None
        self._slots[ref.name] = self._slots.pop(ref.name)
        return slot

    def put(self, ref: ModelRef, engine: Engine) -> Slot:
        slot = self._slots[ref.name] = Slot(ref, engine)
        self._settle(slot)
        self._share_kv()
        return slot

    def make_room(self, ref: ModelRef) -> Slot | None:
        """Close idle engines until `ref` fits. Returns None when it does, else the busy
        slot that has to run empty first."""
        stale = self._slots.get(ref.name)
        if stale is not None:
            if not stale.idle:
                return stale
            self.close(stale)
        needed = self._needed(ref)
        while self._over(1, needed):
            if victim := self._first_idle():
                self.close(victim)
            elif len(self._slots) >= self._max_engines or not self._drop_a_draft():
                return next(iter(self._slots.values()))
        return None

    def make_room_for_draft(self, ref: ModelRef, slot: Slot) -> bool:
        """Close idle engines until `ref` fits beside the engine of `slot`. False, and nothing
        is closed, when that is not enough."""
        if self._max_bytes is None:
            return True
        room = self._max_bytes - self._needed(ref)
        stay = [other for other in self._slots.values() if other is slot or not other.idle]
        if sum(other.engine.resident_bytes for other in stay) > room:
            return False
        while sum(other.engine.resident_bytes for other in self._slots.values()) > room:
            victim = self._first_idle(but=slot)
            assert victim is not None
            self.close(victim)
        return True

    def put_draft(self, ref: ModelRef, draft: Draft, slot: Slot) -> None:
        """Raises DraftError for one that does not fit the engine; it stays the caller's."""
        slot.engine.set_draft(draft)
        slot.draft, slot.draft_failure = ref, None
        self._settle(slot)

    def drop_draft(self, slot: Slot) -> None:
        slot.draft = None
        with contextlib.suppress(Exception):
            slot.engine.set_draft(None)

    def close(self, slot: Slot) -> None:
        slot.closed = True
        self._slots.pop(slot.ref.name, None)
        with contextlib.suppress(Exception):
            slot.engine.close()
        self._share_kv()

    def _settle(self, slot: Slot) -> None:
        """The estimate may have been low: idle neighbours make room afterwards."""
        while self._over(0, 0) and (victim := self._first_idle(but=slot)):
            self.close(victim)

    def _needed(self, ref: ModelRef) -> int:
        """Bytes, where they matter."""
        if self._max_bytes is not None:
            # A model that cannot be measured cannot be loaded: the load says why.
            with contextlib.suppress(SubllmError, OSError):
                return self._estimate(ref)
        return 0

    def _drop_a_draft(self) -> bool:
        for slot in self._slots.values():
            if slot.draft is not None:
                self.drop_draft(slot)
                return True
        return False

    def _share_kv(self) -> None:
        if self._kv_bytes is not None:
            for slot in self._slots.values():
                slot.engine.kv_budget = self._kv_bytes // len(self._slots)

    def _first_idle(self, but: Slot | None = None) -> Slot | None:
        return next((s for s in self._slots.values() if s.idle and s is not but), None)

    def _over(self, more_engines: int, more_bytes: int) -> bool:
        count = len(self._slots) + more_engines
        if count <= 1:
            return False
        if count > self._max_engines:
            return True
        used = sum(slot.engine.resident_bytes for slot in self._slots.values())
        return self._max_bytes is not None and used + more_bytes > self._max_bytes
