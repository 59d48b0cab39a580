"""The pool of engines against a simple account of it: who is loaded, with which
draft, and in how much memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from subllm.engine.kv_room import KvRoom
from subllm.engine.request import Request
from subllm.errors import BackendError, StoreError
from subllm.serving.server.footprint import Footprint
from subllm.serving.server.jobs import Job, ModelRef
from subllm.serving.server.pool import EnginePool, Slot

SIZES = {"a": 10, "b": 20, "c": 30, "d": 90}
SHARED = 5
"""Of these, what they share; nobody knows the size of c before it is loaded."""
CONTEXT = 4
"""Keys and values."""
REFS = [ModelRef(name, version) for name in SIZES for version in ("1", "2")]


@dataclass(frozen=True)
class Guess:
    """As much of a draft."""

    bytes: int


@dataclass(eq=False)
class Loaded:
    """As much of an engine as a pool looks at, and of its cache as a room does. `running` are
    keys and values that running requests hold."""

    own_bytes: int
    kv_budget: int = CONTEXT
    closed: bool = False
    draft: Guess | None = None
    running: int = 0
    lent: int = 0
    room: KvRoom | None = None

    @property
    def charged(self) -> int:
        return self.running

    def oldest(self, spare: int | None = None) -> int | None:
        return None

    def take_back(self) -> None:
        assert not self.lent

    @property
    def on_card(self) -> bool:
        return False

    def share_kv(self, room: KvRoom) -> None:
        self.room = room
        room.join(self)  # type: ignore[arg-type]

    @property
    def resident_bytes(self) -> int:
        return self.own_bytes + (self.draft.bytes if self.draft else 0)

    def set_draft(self, draft: Guess | None) -> None:
        assert not self.closed
        self.draft = draft

    def close(self) -> None:
        assert not self.closed
        self.closed = True
        if self.room is not None:
            self.room.leave(self)  # type: ignore[arg-type]


def job() -> Job:
    return Job("j", REFS[0], Request("j", (1,)), lambda event: None)


@dataclass
class Account:
    """What is loaded, least recently used first."""

    slots: list[Slot] = field(default_factory=list)

    def of(self, name: str) -> Slot | None:
        return next((slot for slot in self.slots if slot.ref.name == name), None)


def measured(ref: ModelRef) -> Footprint:
    if ref.name == "c":
        raise StoreError("a blob is missing")
    return Footprint({ref.name: SIZES[ref.name] - SHARED, "shared": SHARED}, CONTEXT)


class Pools(RuleBasedStateMachine):
    @initialize(engines=st.integers(1, 3), size=st.sampled_from([None, 25, 40, 60, 200]))
    def begin(self, engines: int, size: int | None) -> None:
        self.engines, self.size = engines, size
        self.pool = EnginePool(engines, measured, size)
        self.account = Account()

    def weights(self, slots: list[Slot], *more: str) -> int:
        """By an account of its own: what is shared is there once."""
        names = {slot.ref.name for slot in slots} | {s.draft.name for s in slots if s.draft}
        known = {*names, *more} - {"c"}
        # c comes as it is, for each engine and draft of its version.
        unknown = {s.ref for s in slots if s.ref.name == "c"}
        unknown |= {s.draft for s in slots if s.draft and s.draft.name == "c"}
        shared = SHARED if known else 0
        return sum(SIZES[n] - SHARED for n in known) + shared + SIZES["c"] * len(unknown)

    def needs(self, slots: list[Slot], *more: str) -> int:
        running = sum(slot.engine.running for slot in self.pool.slots())  # type: ignore[attr-defined]
        floor = CONTEXT if slots or {*more} - {"c"} else 0
        return self.weights(slots, *more) + max(floor, running)

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
        alone = 0 if ref.name == "c" else SIZES[ref.name] + CONTEXT
        if self.size is not None and alone > self.size:
            with pytest.raises(BackendError, match=f"{alone - self.size} bytes more than"):
                self.pool.make_room(ref)
            assert not any(slot.closed for slot in before)
            return
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
            if known not in left and len(left) < self.engines:
                assert self.size is not None
                assert self.needs(self.account.slots, ref.name) > self.size
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
        stay = [s for s in before if s is slot or not s.idle]
        fits = self.size is None or self.needs(stay, ref.name) <= self.size
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
    @rule(number=st.integers(0, 9), busy=st.booleans(), tokens=st.integers(1, 9))
    def work(self, number: int, busy: bool, tokens: int) -> None:
        slot = self.account.slots[number % len(self.account.slots)]
        slot.jobs = {"j": job()} if busy else {}
        slot.engine.running = tokens if busy else 0  # type: ignore[attr-defined]

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
        if self.size is None:
            return
        assert self.pool.charged == self.weights(slots) + sum(
            slot.engine.running  # type: ignore[attr-defined]
            for slot in slots
        )
        room = self.pool._room
        assert room is not None
        assert room.budget == max(self.size - self.weights(slots), CONTEXT if slots else 0)
        # Over the bytes only where those loaded before could not go, or one is too large alone.
        if self.weights(slots) + CONTEXT > self.size and len(slots) > 1:
            names = {slot.ref.name for slot in slots} | {s.draft.name for s in slots if s.draft}
            assert "c" in names  # nobody knew its size


Pools.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestPools = Pools.TestCase


def test_what_never_fits_is_told() -> None:
    size = Footprint({"own": 217_000_000, "shared": 318_000_000}, 403_000_000)
    pool = EnginePool(4, lambda ref: size, 800_000_000)
    with pytest.raises(BackendError) as caught:
        pool.make_room(ModelRef("qwen2.5-coder:0.5b-python", "1"))
    assert str(caught.value) == (
        "qwen2.5-coder:0.5b-python takes 535 MB for its weights and 403 MB for one context, "
        "138 MB more than the server may use (800 MB); start it with more --memory, or a smaller "
        "--context-length"
    )


def test_sub_models_of_one_base_share_what_is_the_same() -> None:
    """Three of 217 MB and 318 MB that they share, within 1.1 GB."""

    def measure(ref: ModelRef) -> Footprint:
        return Footprint({ref.name: 217, "shared": 318}, 100)

    pool = EnginePool(4, measure, 1100)
    for name in "abc":
        assert pool.make_room(ModelRef(name, "1")) is None
        pool.put(ModelRef(name, "1"), Loaded(535, 100))  # type: ignore[arg-type]
    assert [slot.ref.name for slot in pool.slots()] == ["a", "b", "c"]
    assert pool.charged == 3 * 217 + 318
    assert pool.make_room(ModelRef("d", "1")) is None
    assert [slot.ref.name for slot in pool.slots()] == ["b", "c"]
