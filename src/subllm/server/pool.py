"""The loaded engines, least recently used first. Used by the engine thread alone."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from subllm.errors import SubllmError
from subllm.runtime.request import Engine
from subllm.server.jobs import Job, ModelRef

log = logging.getLogger("subllm.server")


@dataclass(eq=False)
class Slot:
    """One loaded engine, the generations that run on it and the scores that wait."""

    ref: ModelRef
    engine: Engine
    jobs: dict[str, Job] = field(default_factory=dict)
    scores: deque[Job] = field(default_factory=deque)
    closed: bool = False

    @property
    def idle(self) -> bool:
        return not self.jobs and not self.scores


class EnginePool:
    """At most `max_engines` engines and, when several are loaded, `max_bytes` bytes.

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
        # The estimate may have been low: idle neighbours make room afterwards.
        while self._over(0, 0) and (victim := self._first_idle(but=slot)):
            self.close(victim)
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
        needed = 0
        if self._max_bytes is not None:
            # A model that cannot be measured cannot be loaded: the load says why.
            with contextlib.suppress(SubllmError, OSError):
                needed = self._estimate(ref)
        while self._over(1, needed):
            victim = self._first_idle()
            if victim is None:
                return next(iter(self._slots.values()))
            self.close(victim)
        return None

    def close(self, slot: Slot) -> None:
        slot.closed = True
        self._slots.pop(slot.ref.name, None)
        with contextlib.suppress(Exception):
            slot.engine.close()
        self._share_kv()

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
