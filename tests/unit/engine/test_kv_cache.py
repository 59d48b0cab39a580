"""Accounts of KV memory against the memory that the native backend really holds.

What a slab holds is known where it is allocated: the core counts each block once, however
many slabs share it. The cache must never promise what the core does not have.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from oracles.smallest_model import TEXTS, tiny_backend, tiny_source

from subllm.engine.backend import KV_BLOCK, Backend, Chunk, TokenArray
from subllm.engine.backends.cuda import CudaBackend
from subllm.engine.backends.native import NativeBackend
from subllm.engine.kv_cache import MIN_PREFIX, KvCache, blocks, common_prefix

BUDGET, KEEP = 10, 3


class Accounts(RuleBasedStateMachine):
    """Requests come, grow, end or are dropped, in any order."""

    def __init__(self, backend: Backend | None = None) -> None:
        super().__init__()
        self.backend = backend or tiny_backend()
        self.block = KV_BLOCK * self.backend.kv_bytes_per_token
        self.empty = self.backend.resident_bytes
        self.budget = BUDGET
        self.cache = KvCache(self.backend, BUDGET * self.block + self.block // 2, KEEP)
        self.tokens: dict[int, TokenArray] = {}  # of running requests
        self.computed: dict[int, int] = {}
        self.loose: set[int] = set()  # slabs with room that may never have been written

    @property
    def real(self) -> int:
        """Blocks that the core has allocated."""
        return (self.backend.resident_bytes - self.empty) // self.block

    @property
    def charged(self) -> int:
        return self.cache.charged // self.block

    @property
    def running(self) -> int:
        return self.cache.held_tokens // KV_BLOCK

    def compute(self, handle: int, count: int) -> None:
        start = self.computed[handle]
        chunk = self.tokens[handle][start : start + count]
        self.backend.step([Chunk(handle, start, chunk)])
        self.computed[handle] = start + len(chunk)

    def one(self, number: int) -> int:
        return sorted(self.tokens)[number % len(self.tokens)]

    @rule(text=st.sampled_from(range(len(TEXTS))), length=st.integers(1, 400))
    def begin(self, text: int, length: int) -> None:
        tokens = TEXTS[text][:length]
        live = [(h, self.tokens[h][: self.computed[h]]) for h in self.tokens]
        known = [*live, *self.cache._kept.items()]
        best = max((common_prefix(tokens[:-1], found) for _, found in known), default=0)
        before = set(self.cache._kept)
        room = self.budget - self.running
        found = self.cache.attach(tokens, live)
        if found is None:
            assert blocks(length) > room - (best // KV_BLOCK if live else 0)
            assert set(self.cache._kept) == before
            return
        handle, have = found
        assert handle not in self.tokens
        assert have == 0 or MIN_PREFIX <= have == best
        assert have < length
        self.tokens[handle], self.computed[handle] = tokens, have

    @precondition(lambda self: self.tokens)
    @rule(number=st.integers(0, 9), count=st.integers(1, 200))
    def run(self, number: int, count: int) -> None:
        handle = self.one(number)
        if self.computed[handle] < len(self.tokens[handle]):
            self.compute(handle, count)

    @precondition(lambda self: self.tokens)
    @rule(number=st.integers(0, 9), more=st.integers(1, 100))
    def grow(self, number: int, more: int) -> None:
        handle = self.one(number)
        longer = np.concatenate([self.tokens[handle], np.zeros(more, np.int32)])
        added = blocks(len(longer)) - blocks(len(self.tokens[handle]))
        before = set(self.cache._kept)
        if self.cache.grow(handle, len(longer)):
            self.tokens[handle] = longer
        else:
            assert added > self.budget - self.running
            assert set(self.cache._kept) == before

    @precondition(lambda self: self.tokens)
    @rule(number=st.integers(0, 9), whole=st.booleans())
    def end(self, number: int, whole: bool) -> None:
        handle = self.one(number)
        if whole and self.computed[handle] < len(self.tokens[handle]):
            self.compute(handle, 10_000)
        tokens, computed = self.tokens.pop(handle), self.computed.pop(handle)
        before = set(self.cache._kept)
        self.cache.keep(handle, tokens[:computed])
        if computed < len(tokens):
            self.loose |= set(self.cache._kept) - before

    @precondition(lambda self: self.tokens)
    @rule(number=st.integers(0, 9))
    def give_up(self, number: int) -> None:
        handle = self.one(number)
        self.cache.drop(handle)
        del self.tokens[handle], self.computed[handle]

    @rule(count=st.integers(1, BUDGET))
    def change_budget(self, count: int) -> None:
        self.cache.budget = count * self.block
        self.budget = count

    @rule()
    def settle(self) -> None:
        """Once every promised block was written, the accounts are exact."""
        for handle, tokens in self.tokens.items():
            if self.computed[handle] < len(tokens):
                self.compute(handle, 10_000)
        if not self.loose & {*self.tokens, *self.cache._kept}:
            assert self.real == self.charged

    @invariant()
    def nothing_is_promised_twice(self) -> None:
        assert self.real <= self.charged <= max(self.budget, self.running)
        assert len(self.cache._kept) <= KEEP
        assert self.cache.budget == self.budget * self.block

    def teardown(self) -> None:
        for handle in list(self.tokens):
            self.cache.drop(handle)
        assert self.cache.held_tokens == 0
        self.cache.clear()
        assert (self.charged, self.real) == (0, 0)


TestAccounts = Accounts.TestCase
TestAccounts.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


class PagedAccounts(Accounts):
    """The same against the pool of the backend for GPUs."""

    def __init__(self) -> None:
        super().__init__(CudaBackend(tiny_source(), device="cpu", dtype="float32", threads=1))


TestPagedAccounts = PagedAccounts.TestCase
TestPagedAccounts.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def test_what_requests_share_is_charged_once() -> None:
    """Eight completions of one prompt of 300 tokens in the room of two."""
    backend = tiny_backend()
    block = KV_BLOCK * backend.kv_bytes_per_token
    cache = KvCache(backend, 12 * block, keep=0)
    prompt = TEXTS[0][:300]
    first = cache.attach(prompt)
    assert first == (1, 0)
    backend.step([Chunk(1, 0, prompt)])
    for count in range(1, 8):
        attached = cache.attach(prompt, [(1, prompt)])
        assert attached is not None
        handle, have = attached
        assert have == 299
        backend.step([Chunk(handle, have, prompt[have:])])
        assert cache.charged == (5 + count) * block  # 4 of 5 blocks are the first one's
    assert cache.attach(prompt, [(1, prompt)]) is None
    cache.drop(1)  # its blocks are still held by the others
    assert cache.charged == 11 * block
    cache.clear()
    assert cache.charged == 0


def test_slabs_that_are_copied_are_charged_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NativeBackend, "kv_shares", False)
    backend = tiny_backend()
    block = KV_BLOCK * backend.kv_bytes_per_token
    cache = KvCache(backend, 8 * block, keep=0)
    assert cache.attach(TEXTS[0][:200]) == (1, 0)
    backend.step([Chunk(1, 0, TEXTS[0][:200])])
    assert cache.attach(TEXTS[0][:200], [(1, TEXTS[0][:200])]) == (2, 199)
    assert cache.charged == 8 * block


def finish(cache: KvCache, backend: NativeBackend, tokens: TokenArray) -> int:
    """Runs a request that is alone; how many of its tokens were there already."""
    attached = cache.attach(tokens)
    assert attached is not None
    handle, have = attached
    backend.step([Chunk(handle, have, tokens[have:])])
    cache.keep(handle, tokens)
    return have


def test_an_edit_leaves_the_prompt_before_it() -> None:
    """Keystrokes in the middle of a text, with another text between: each begins at the cursor
    and what is back to where it was is there to the end. The blocks before the cursor are there
    once."""
    backend = tiny_backend()
    block = KV_BLOCK * backend.kv_bytes_per_token
    cache = KvCache(backend, 40 * block, keep=99)
    text, other = TEXTS[0][:320], TEXTS[3][:320]
    assert finish(cache, backend, text) == 0
    typed = text
    for key in range(4):
        typed = np.concatenate([text[:160], np.full(key + 1, 9, np.int32), text[160:]])
        assert finish(cache, backend, typed) == 160 + key
        assert finish(cache, backend, other) == (319 if key else 0)
    assert finish(cache, backend, text) == 319  # all is undone
    # Five versions from the third block on, their two first ones, and the other text.
    assert cache.charged <= (2 + 5 * 4 + 5) * block
    # Prompts of which nothing is new, or that go on, take no place of their own.
    kept = dict(cache._kept)
    finish(cache, backend, typed[:100])
    assert set(cache._kept) == set(kept)
    finish(cache, backend, np.concatenate([typed, typed[:30]]))
    assert len(cache._kept) == len(kept)


def test_what_was_used_longest_ago_goes_first() -> None:
    backend = tiny_backend()
    block = KV_BLOCK * backend.kv_bytes_per_token
    cache = KvCache(backend, 12 * block, keep=99)
    rng = np.random.default_rng(7)
    texts = [rng.integers(0, 64, 4 * KV_BLOCK).astype(np.int32) for _ in range(4)]
    for text in texts[:3]:
        assert finish(cache, backend, text) == 0
    # Whoever begins where another ended has a block of its own until it ends as well.
    assert finish(cache, backend, texts[1]) == 4 * KV_BLOCK - 1  # in place of the first
    assert finish(cache, backend, texts[3]) == 0
    assert finish(cache, backend, texts[1]) == 4 * KV_BLOCK - 1
    assert finish(cache, backend, texts[3]) == 4 * KV_BLOCK - 1
    assert finish(cache, backend, texts[0]) == 0


def test_what_a_request_that_was_given_up_had_not_computed_is_free() -> None:
    backend = tiny_backend()
    block = KV_BLOCK * backend.kv_bytes_per_token
    cache = KvCache(backend, 12 * block, keep=99)
    attached = cache.attach(TEXTS[0])
    assert attached == (1, 0) and cache.charged == 7 * block
    backend.step([Chunk(1, 0, TEXTS[0][:100])])
    cache.keep(1, TEXTS[0][:100])
    assert cache.charged == 2 * block
    assert finish(cache, backend, TEXTS[0]) == 100
