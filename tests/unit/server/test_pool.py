"""The pool of engines against a simple account of it: who is loaded, with which
draft, and in how much memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from subllm.errors import StoreError
from subllm.runtime.request import Request
from subllm.server.jobs import Job, ModelRef
from subllm.server.pool import EnginePool, Slot

SIZES = {"a": 10, "b": 20, "c": 30, "d": 90}
REFS = [ModelRef(name, version) for name in SIZES for version in ("1", "2")]


@dataclass(frozen=True)
class Guess:
    """As much of a draft."""

    bytes: int


@dataclass(eq=False)
class Loaded:
    """As much of an engine as a pool looks at."""

    own_bytes: int
    kv_budget: int = 0
    closed: bool = False
    draft: Guess | None = None

    @property
    def resident_bytes(self) -> int:
        return self.own_bytes + (self.draft.bytes if self.draft else 0)

    def set_draft(self, draft: Guess | None) -> None:
        assert not self.closed
        self.draft = draft

    def close(self) -> None:
        assert not self.closed
        self.closed = True


def job() -> Job:
    return Job("j", REFS[0], Request("j", (1,)), lambda event: None)


@dataclass
class Account:
    """What is loaded, least recently used first."""

    slots: list[Slot] = field(default_factory=list)

    def of(self, name: str) -> Slot | None:
        return next((slot for slot in self.slots if slot.ref.name == name), None)


class Pools(RuleBasedStateMachine):
    @initialize(
        engines=st.integers(1, 3),
        size=st.sampled_from([None, 25, 60, 200]),
        kv=st.sampled_from([None, 100]),
    )
    def begin(self, engines: int, size: int | None, kv: int | None) -> None:
        def estimate(ref: ModelRef) -> int:
            if ref.name == "c":
                raise StoreError("a blob is missing")
            return SIZES[ref.name]

        self.engines, self.size, self.kv = engines, size, kv
        self.pool = EnginePool(engines, size, estimate, kv)
        self.account = Account()

    def forget_closed(self) -> None:
        self.account.slots = [slot for slot in self.account.slots if not slot.closed]

    @rule(ref=st.sampled_from(REFS))
    def use(self, ref: ModelRef) -> None:
        """Get it, or make room and load it, as the worker does."""
        known = self.account.of(ref.name)
        slot = self.pool.get(ref)
        if known is not None and known.ref == ref:
            assert slot is known
            self.account.slots.remove(slot)
            self.account.slots.append(slot)
            return
        assert slot is None
        before = list(self.account.slots)
        blocker = self.pool.make_room(ref)
        if blocker is not None:
            # Nobody is closed who works; the one to wait for is the other version while it
            # works, else the one that was not used for longest.
            assert not blocker.idle and not blocker.closed
            left = [slot for slot in before if not slot.closed]
            if known not in left and len(left) < self.engines:  # it is the bytes
                assert not any(slot.draft for slot in left)
            assert blocker is (known if known in left else left[0])
            assert all(slot.idle for slot in before if slot.closed)
            self.forget_closed()
            return
        closed = [slot for slot in before if slot.closed]
        assert all(slot.idle for slot in closed)
        # The least recently used of those that could go, but for the other version.
        idle = [slot for slot in before if slot.idle and slot is not known]
        assert (
            [slot for slot in closed if slot is not known]
            == [slot for slot in idle if slot.closed]
            == idle[: len(closed) - (known in closed)]
        )
        self.account.slots = [*(s for s in before if not s.closed)]
        made = self.pool.put(ref, Loaded(SIZES[ref.name]))  # type: ignore[arg-type]
        self.account.slots.append(made)
        assert not made.closed
        self.forget_closed()

    @precondition(lambda self: self.account.slots)
    @rule(number=st.integers(0, 9), ref=st.sampled_from(REFS))
    def draft(self, number: int, ref: ModelRef) -> None:
        """Attach a draft where there is room, as the draft loader does."""
        slot = self.account.slots[number % len(self.account.slots)]
        self.pool.drop_draft(slot)
        assert slot.draft is None and slot.engine.draft is None  # type: ignore[attr-defined]
        before = list(self.account.slots)
        needed = 0 if ref.name == "c" else SIZES[ref.name]
        stay = sum(s.engine.resident_bytes for s in before if s is slot or not s.idle)
        fits = self.size is None or stay + needed <= self.size
        assert self.pool.make_room_for_draft(ref, slot) is fits
        assert not slot.closed
        closed = [s for s in before if s.closed]
        assert fits or not closed
        assert closed == [s for s in before if s.idle and s is not slot][: len(closed)]
        self.forget_closed()
        if fits:
            self.pool.put_draft(ref, Guess(SIZES[ref.name]), slot)  # type: ignore[arg-type]
            assert slot.draft == ref and not slot.closed
            self.forget_closed()

    @precondition(lambda self: self.account.slots)
    @rule(number=st.integers(0, 9), busy=st.booleans())
    def work(self, number: int, busy: bool) -> None:
        slot = self.account.slots[number % len(self.account.slots)]
        slot.jobs = {"j": job()} if busy else {}

    @precondition(lambda self: self.account.slots)
    @rule(number=st.integers(0, 9))
    def break_one(self, number: int) -> None:
        slot = self.account.slots[number % len(self.account.slots)]
        self.pool.close(slot)
        assert slot.closed and slot.engine.closed  # type: ignore[attr-defined]
        self.forget_closed()

    @invariant()
    def bounds_hold(self) -> None:
        if not hasattr(self, "pool"):
            return
        slots = self.pool.slots()
        assert slots == self.account.slots  # in the order of use
        assert len(slots) <= self.engines
        assert not any(slot.engine.closed for slot in slots)  # type: ignore[attr-defined]
        assert len({slot.ref.name for slot in slots}) == len(slots)
        if self.kv is not None:
            assert all(slot.engine.kv_budget == self.kv // len(slots) for slot in slots)
        # Over the bytes only where those loaded before could not go, or one is too large alone.
        used = sum(slot.engine.resident_bytes for slot in slots)
        if self.size is not None and used > self.size and len(slots) > 1:
            names = {slot.ref.name for slot in slots} | {s.draft.name for s in slots if s.draft}
            assert "c" in names  # nobody knew its size


Pools.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestPools = Pools.TestCase
