"""The loaded engines, least recently used first. Used by the engine thread alone."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from subllm.engine.kv_room import KvRoom
from subllm.engine.request import Engine
from subllm.errors import BackendError, SubllmError
from subllm.quantities import size_text
from subllm.serving.server.footprint import NOTHING, Footprint, weights_of
from subllm.serving.server.jobs import Job, ModelRef

if TYPE_CHECKING:
    from subllm.engine.draft import Draft

log = logging.getLogger("subllm.server")


KEPT_SHARE = 0.25
"""Of the memory, for prefixes that may be used again."""


@dataclass(eq=False)
class Slot:
    """One loaded engine and the jobs that run on it.

    draft          the model that drafts for it
    draft_failure  why the last one that was wanted does not
    refused        models that are not to be tried again
    size           of the engine, `draft_size` of its draft
    keep_alive     seconds that it stays once nobody uses it
    unload_at      when it goes, if nobody does until then; None while somebody does
    """

    ref: ModelRef
    engine: Engine
    jobs: dict[str, Job] = field(default_factory=dict)
    closed: bool = False
    draft: ModelRef | None = None
    draft_failure: str | None = None
    refused: set[ModelRef] = field(default_factory=set)
    size: Footprint = NOTHING
    draft_size: Footprint = NOTHING
    keep_alive: float = math.inf
    unload_at: float | None = None

    @property
    def idle(self) -> bool:
        return not self.jobs


class EnginePool:
    """At most `max_engines` engines, and what they take together within `memory` bytes: weights,
    what several of them share counted once, keys and values of what runs on them, of which one
    context of the largest always has room, and kept prefixes. None: there is no bound, and
    each engine has the KV memory that it was made with. The draft of an engine is a part of it,
    and goes before anybody has to wait.

    `measure` tells what a model will take before it is loaded. `keep_alive` is that of a slot
    for which nobody said anything. Models of the names `pinned` are never closed to make room,
    nor for being idle.
    """

    def __init__(
        self,
        max_engines: int,
        measure: Callable[[ModelRef], Footprint],
        memory: int | None = None,
        keep_alive: float = math.inf,
        pinned: Collection[str] = (),
    ) -> None:
        self._max_engines = max_engines
        self._measure = measure
        self._memory = memory
        self._room = None if memory is None else KvRoom(memory, keep=int(memory * KEPT_SHARE))
        self._keep_alive = keep_alive
        self._pinned = frozenset(pinned)
        self._slots: dict[str, Slot] = {}  # by name, in order of use
        self.closed = 0
        """Engines, so far."""

    def slots(self) -> list[Slot]:
        return list(self._slots.values())

    @property
    def charged(self) -> int:
        """Bytes that count against `memory`."""
        return self._weights(self.slots()) + (self._room.charged if self._room else 0)

    def get(self, ref: ModelRef) -> Slot | None:
        """The slot of exactly this version, now the most recently used."""
        slot = self._slots.get(ref.name)
        if slot is None or slot.ref != ref:
            return None
        self._slots[ref.name] = self._slots.pop(ref.name)
        slot.unload_at = None
        return slot

    def put(self, ref: ModelRef, engine: Engine) -> Slot:
        size = NOTHING  # on a card it takes of that one's memory, which whoever loaded it knows
        if not engine.on_card:
            size = _true(self._measured(ref), engine.resident_bytes, ref)
            size = replace(size, kv=max(size.kv, engine.kv_budget))
        slot = Slot(ref, engine, size=size, keep_alive=self._keep_alive)
        self._slots[ref.name] = slot
        self._settle(slot)
        if self._room is not None:
            engine.share_kv(self._room)
        return slot

    def make_room(self, ref: ModelRef) -> Slot | None:
        """Close idle engines until `ref` fits. Returns None when it does, else the busy
        slot that has to run empty first. Raises BackendError for one that never will."""
        size = self._measured(ref)
        self._refuse_too_large(ref, size)
        stale = self._slots.get(ref.name)
        if stale is not None:
            if not stale.idle:
                return stale
            self.close(stale)
        while self._over(1, size):
            if victim := self._first_idle():
                self.close(victim)
            elif len(self._slots) >= self._max_engines or not self._drop_a_draft():
                busy = [slot for slot in self.slots() if not slot.idle]
                return next((s for s in busy if s.ref.name not in self._pinned), busy[0])
        return None

    def make_room_for_draft(self, ref: ModelRef, slot: Slot) -> bool:
        """Close idle engines until `ref` fits beside the engine of `slot`. False, and nothing
        is closed, when that is not enough."""
        size = replace(self._measured(ref), kv=0)
        if self._too_much([s for s in self.slots() if s is slot or not s.idle], size):
            return False
        while self._too_much(self.slots(), size):
            victim = self._first_idle(but=slot)
            assert victim is not None
            self.close(victim)
        return True

    def put_draft(self, ref: ModelRef, draft: Draft, slot: Slot) -> None:
        """Raises DraftError for one that does not fit the engine; it stays the caller's."""
        before = slot.engine.resident_bytes
        slot.engine.set_draft(draft)
        slot.draft, slot.draft_failure = ref, None
        size = replace(self._measured(ref), kv=0)
        slot.draft_size = _true(size, slot.engine.resident_bytes - before, ref)
        self._settle(slot)

    def drop_draft(self, slot: Slot) -> None:
        slot.draft, slot.draft_size = None, NOTHING
        with contextlib.suppress(Exception):
            slot.engine.set_draft(None)
        self._share_out()

    def let_go(self, name: str) -> None:
        """It goes as soon as nobody uses it, whatever was said before."""
        slot = self._slots.get(name)
        if slot is not None:
            slot.keep_alive, slot.unload_at = 0.0, None

    def unload_idle(self, now: float) -> float | None:
        """Closes the engines that nobody has used for as long as they are to stay. Seconds
        until the next may be due; None: none will be."""
        left = []
        for slot in self.slots():
            if not slot.idle or slot.ref.name in self._pinned:
                slot.unload_at = None
                continue
            if slot.unload_at is None:
                slot.unload_at = now + slot.keep_alive
            if slot.unload_at <= now:
                log.info("%s is unloaded: nobody has used it", slot.ref.name)
                self.close(slot)
            elif slot.unload_at < math.inf:
                left.append(slot.unload_at - now)
        return min(left, default=None)

    def close(self, slot: Slot) -> None:
        slot.closed = True
        self._slots.pop(slot.ref.name, None)
        with contextlib.suppress(Exception):
            slot.engine.close()
        self._share_out()
        self.closed += 1

    def _settle(self, slot: Slot) -> None:
        """The measure may have been low: idle neighbours make room afterwards."""
        while self._over(0, NOTHING) and (victim := self._first_idle(but=slot)):
            self.close(victim)
        self._share_out()

    def _share_out(self) -> None:
        """What weights leave is for keys and values."""
        if self._room is not None and self._memory is not None:
            floor = max((slot.size.kv for slot in self.slots()), default=0)
            self._room.budget = max(self._memory - self._weights(self.slots()), floor)

    def _measured(self, ref: ModelRef) -> Footprint:
        """Where it matters."""
        if self._memory is not None:
            # A model that cannot be measured cannot be loaded: the load says why.
            with contextlib.suppress(SubllmError, OSError):
                return self._measure(ref)
        return NOTHING

    def _refuse_too_large(self, ref: ModelRef, size: Footprint) -> None:
        """Beside what stays in any case."""
        stay = [s for s in self.slots() if s.ref.name in self._pinned and s.ref.name != ref.name]
        if stay and len(stay) >= self._max_engines:
            raise BackendError(
                f"{ref.name} cannot be loaded: all of max_loaded_models {self._max_engines} are "
                "preloaded and stay; start the server with more of them"
            )
        if self._memory is None:
            return
        beside = self._weights(stay)
        kv = max([size.kv, *(slot.size.kv for slot in stay)])
        missing = self._weights(stay, size) + kv - self._memory
        if missing <= 0:
            return
        less = ", or a smaller --context-length" if missing < kv else ""
        others = f" beside {size_text(beside)} of preloaded models" if stay else ""
        raise BackendError(
            f"{ref.name} takes {size_text(self._weights(stay, size) - beside)} for its weights and "
            f"{size_text(kv)} for one context{others}, {size_text(missing)} more than the server "
            f"may use ({size_text(self._memory)}); start it with more --memory{less}"
        )

    def _weights(self, slots: list[Slot], more: Footprint = NOTHING) -> int:
        sizes = [size for slot in slots for size in (slot.size, slot.draft_size)]
        return weights_of([*sizes, more])

    def _too_much(self, slots: list[Slot], more: Footprint) -> bool:
        """Whether `slots` and `more` are over the bytes, with what runs now."""
        if self._memory is None or self._room is None:
            return False
        floor = max([more.kv, *(slot.size.kv for slot in slots)])
        return self._weights(slots, more) + max(floor, self._room.running) > self._memory

    def _drop_a_draft(self) -> bool:
        for slot in self._slots.values():
            if slot.draft is not None:
                self.drop_draft(slot)
                return True
        return False

    def _first_idle(self, but: Slot | None = None) -> Slot | None:
        idle = (s for s in self._slots.values() if s.idle and s is not but)
        return next((s for s in idle if s.ref.name not in self._pinned), None)

    def _over(self, more_engines: int, more: Footprint) -> bool:
        count = len(self._slots) + more_engines
        if count <= 1:
            return False
        return count > self._max_engines or self._too_much(self.slots(), more)


def _true(size: Footprint, resident: int, ref: ModelRef) -> Footprint:
    """With what a loaded model takes beyond its files: a backend may lay weights out anew."""
    more = resident - size.weights
    return size if more <= 0 else replace(size, parts={**size.parts, f"of {ref}": more})
