"""Several caches in one room, against the memory that their backends really hold."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from oracles.smallest_model import TEXTS, tiny_backend

from subllm.engine.backend import KV_BLOCK, Chunk, TokenArray
from subllm.engine.kv_cache import KvCache, blocks, common_prefix
from subllm.engine.kv_room import KvRoom

CACHES, BUDGET, KEEP = 3, 14, 8


class Rooms(RuleBasedStateMachine):
    """Requests of several engines come, grow, end, wait or are dropped, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.backends = [tiny_backend() for _ in range(CACHES)]
        self.block = KV_BLOCK * self.backends[0].kv_bytes_per_token
        self.empty = self.backends[0].resident_bytes
        self.room = KvRoom(BUDGET * self.block, keep=KEEP * self.block)
        self.caches = [KvCache(backend, self.block, 9) for backend in self.backends]
        for cache in self.caches:
            cache.join(self.room)
        self.budget = BUDGET
        self.tokens: dict[tuple[int, int], TokenArray] = {}  # of running requests
        self.lent = [0] * CACHES

    def real(self, which: int) -> int:
        return (self.backends[which].resident_bytes - self.empty) // self.block

    def kept(self) -> list[set[int]]:
        return [set(cache._kept) for cache in self.caches]

    def one(self, number: int) -> tuple[int, int]:
        return sorted(self.tokens)[number % len(self.tokens)]

    @rule(which=st.integers(0, CACHES - 1), text=st.integers(0, 3), length=st.integers(1, 400))
    def begin(self, which: int, text: int, length: int) -> None:
        """And run to the end of the prompt."""
        cache, tokens = self.caches[which], TEXTS[text][:length]
        if not cache.may_begin():
            assert self.room._claims[0] is not cache
            return
        before, running = self.kept(), self.room.running // self.block
        live = [(handle, t) for (owner, handle), t in self.tokens.items() if owner == which]
        best = max((common_prefix(tokens[:-1], found) for _, found in live), default=0)
        found = cache.attach(tokens, live)
        if found is None:
            assert blocks(length) > self.budget - running - best // KV_BLOCK
            assert self.kept() == before
            cache.claim()
            return
        cache.waive()
        handle, have = found
        self.backends[which].step([Chunk(handle, have, tokens[have:])])
        self.tokens[which, handle] = tokens

    @rule(which=st.integers(0, CACHES - 1))
    def give_up_waiting(self, which: int) -> None:
        self.caches[which].waive()
        assert self.caches[which] not in self.room._claims

    @precondition(lambda self: self.tokens)
    @rule(number=st.integers(0, 9), more=st.integers(1, 100))
    def grow(self, number: int, more: int) -> None:
        which, handle = self.one(number)
        before, running = self.kept(), self.room.running // self.block
        tokens = self.tokens[which, handle]
        longer = np.concatenate([tokens, np.full(more, which, np.int32)])
        if self.caches[which].grow(handle, len(longer)):
            self.backends[which].step([Chunk(handle, len(tokens), longer[len(tokens) :])])
            self.tokens[which, handle] = longer
        else:
            assert running + blocks(len(longer)) - blocks(len(tokens)) > self.budget
            assert self.kept() == before

    @precondition(lambda self: self.tokens)
    @rule(number=st.integers(0, 9), keep=st.booleans())
    def end(self, number: int, keep: bool) -> None:
        which, handle = self.one(number)
        tokens = self.tokens.pop((which, handle))
        if keep:
            self.caches[which].keep(handle, tokens)
        else:
            self.caches[which].drop(handle)

    @rule(which=st.integers(0, CACHES - 1), count=st.integers(0, 4))
    def lend(self, which: int, count: int) -> None:
        def reclaim() -> None:
            self.lent[which] = 0

        if self.caches[which].lend(count * self.block, reclaim):
            self.lent[which] = count

    @rule(count=st.integers(7, BUDGET))
    def change_budget(self, count: int) -> None:
        self.room.budget = count * self.block
        self.budget = count

    @rule(which=st.integers(0, CACHES - 1))
    def unload(self, which: int) -> None:
        """And load anew: nothing of it is left in the room."""
        for owner, handle in [key for key in self.tokens if key[0] == which]:
            del self.tokens[owner, handle]
        self.caches[which].lend(0, lambda: None)
        self.lent[which] = 0
        self.caches[which].clear()
        assert self.real(which) == 0
        self.caches[which] = KvCache(self.backends[which], self.block, 9)
        self.caches[which].join(self.room)

    @invariant()
    def accounts_are_true(self) -> None:
        for which, cache in enumerate(self.caches):
            assert cache.charged // self.block == self.real(which) + self.lent[which]
            assert cache.lent // self.block == self.lent[which]
        running = self.room.running
        assert self.room.charged <= max(self.budget * self.block, running)
        lent = sum(self.lent) * self.block
        assert self.room.charged - running - lent <= KEEP * self.block

    def teardown(self) -> None:
        for cache in self.caches:
            cache.clear()
        assert not self.room._claims and not self.room._tenants


TestRooms = Rooms.TestCase
TestRooms.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def test_a_large_request_of_one_engine_is_not_passed_by_small_ones_of_another() -> None:
    one, two = tiny_backend(), tiny_backend()
    block = KV_BLOCK * one.kv_bytes_per_token
    room = KvRoom(8 * block)
    small, large = KvCache(one, block, 0), KvCache(two, block, 0)
    small.join(room)
    large.join(room)
    first = small.open(3 * KV_BLOCK)
    assert first is not None
    assert large.open(6 * KV_BLOCK) is None
    large.claim()
    assert not small.may_begin() and large.may_begin()
    assert small.grow(first, 4 * KV_BLOCK)  # what runs goes on
    small.drop(first)
    assert large.open(6 * KV_BLOCK) is not None
    large.waive()
    assert small.may_begin()
