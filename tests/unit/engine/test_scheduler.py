"""The scheduler on real KV memory, with any requests in any order: who runs, who waits."""

from __future__ import annotations

import random

import numpy as np
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
from oracles.smallest_model import TEXTS, tiny_backend
from oracles.tiny_models import tokenizer

from subllm.engine.backend import KV_BLOCK, Chunk
from subllm.engine.kv_cache import KvCache
from subllm.engine.output import CompletionText
from subllm.engine.request import Request, SamplingParams, TokenLogprob
from subllm.engine.scheduler import MOST_OVERTAKEN, Scheduler, Work
from subllm.engine.scoring import ScoringSequence
from subllm.engine.sequence import Sequence

BLOCKS, BATCH, CHUNK = 8, 4, 64
LONGEST = BLOCKS * KV_BLOCK - 40  # of a prompt: every request fits alone


class Bench:
    """A scheduler, and steps as an engine makes them: tokens run in the core, so that what
    the scheduler asks for must be possible; the token that follows is always the same."""

    def __init__(self, *, budget: int = BLOCKS, batch: int = BATCH, chunk: int = CHUNK) -> None:
        self.backend = tiny_backend()
        self.block = KV_BLOCK * self.backend.kv_bytes_per_token
        self.kv = KvCache(self.backend, budget * self.block, keep=2)
        self.scheduler = Scheduler(self.kv, max_batch=batch, prefill_chunk=chunk)
        self.order: list[Sequence] = []  # those that are not over, as they came
        self.ended: list[Sequence] = []

    def add(
        self,
        text: int,
        length: int,
        max_tokens: int,
        *,
        interactive: bool = False,
        score: bool = False,
    ) -> Sequence:
        params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
        prompt = tuple(TEXTS[text][:length].tolist())
        name = str(len(self.order))
        if score:
            sequence: Sequence = ScoringSequence(Request(name, prompt, score=0), tokenizer())
        else:
            request = Request(name, prompt, params, interactive=interactive)
            sequence = Sequence(request, CompletionText(tokenizer(), ()), {})
        self.scheduler.add(sequence)
        self.order.append(sequence)
        return sequence

    def step(
        self, allowance: int | None = None, reading: int | None = None, score_weight: float = 1.0
    ) -> list[Work]:
        work = self.scheduler.plan(allowance, reading, score_weight)
        if work:
            self.backend.step([self._chunk(item) for item in work])
        for item in work:
            if isinstance(item.sequence, ScoringSequence):
                entries = [TokenLogprob(0, 0.0)] * item.count
                if item.sequence.scored(entries).finish_reason is not None:
                    self.end(item.sequence)
                continue
            last = item.last
            item.sequence.computed += item.count
            if last and item.sequence.accept(1, None).finish_reason is not None:
                self.end(item.sequence)
        return work

    def end(self, sequence: Sequence) -> None:
        self.scheduler.finish(sequence)
        self.order.remove(sequence)
        self.ended.append(sequence)

    @staticmethod
    def _chunk(item: Work) -> Chunk:
        sequence = item.sequence
        assert sequence.kv is not None
        start = sequence.computed
        return Chunk(sequence.kv, start, sequence.tokens[start : start + item.count])


class Requests(RuleBasedStateMachine):
    @initialize(allowed=st.booleans())
    def begin(self, allowed: bool) -> None:
        self.bench = Bench()
        self.allowed = allowed  # whether steps have allowances

    @property
    def scheduler(self) -> Scheduler:
        return self.bench.scheduler

    @rule(
        text=st.sampled_from(range(len(TEXTS))),
        length=st.integers(1, 400),
        more=st.integers(1, 40),
        kind=st.sampled_from(["plain", "interactive", "score"]),
    )
    def add(self, text: int, length: int, more: int, kind: str) -> None:
        length = max(2, min(length, LONGEST))  # a score of one token is over at once
        self.bench.add(text, length, more, interactive=kind == "interactive", score=kind == "score")

    @precondition(lambda self: len(self.scheduler))
    @rule(number=st.integers(0, 30))
    def abort(self, number: int) -> None:
        sequence = self.bench.order[number % len(self.bench.order)]
        self.bench.end(sequence)
        assert sequence.kv is None

    @rule(
        allowance=st.integers(1, 80),
        reading=st.sampled_from([None, 1, 5, 40, 1000]),
        weight=st.sampled_from([1.0, 1.7, 30.0]),
    )
    def step(self, allowance: int, reading: int | None = None, weight: float = 1.0) -> None:
        given = allowance if self.allowed else None
        before = list(self.scheduler.running)
        decoding = [sequence for sequence in before if sequence.pending == 1]
        turns = {id(sequence): sequence.turn for sequence in before}
        pending = {id(sequence): sequence.pending for sequence in self.bench.order}
        work = self.bench.step(given, reading, weight)
        ran = [item.sequence for item in work]
        counts = [item.count for item in work]
        assert len(set(map(id, ran))) == len(ran)
        assert all(0 < item.count <= max(pending[id(item.sequence)], 400) for item in work)
        assert len(ran) <= BATCH
        assert bool(work) == bool(pending)  # it always goes on
        prompt_tokens = sum(n for s, n in zip(ran, counts, strict=True) if s not in decoding)
        most = CHUNK // 4 if decoding else CHUNK
        assert prompt_tokens <= (most if reading is None else min(CHUNK, reading))
        if given is not None:
            assert sum(counts) <= given
        left_out = [s for s in decoding if s not in ran and s in self.scheduler.running]
        if given is None:
            assert not left_out
        for one in left_out:  # whoever ran instead had waited as long
            assert all(turns[id(s)] <= turns[id(one)] for s in ran if s in decoding)

    @rule(count=st.integers(2, 30))
    def steps(self, count: int) -> None:
        for number in range(count):
            self.step(1 + number % 7 * 11)

    @invariant()
    def none_is_lost_and_none_passed_for_ever(self) -> None:
        served = [*self.scheduler.running, *self.scheduler.waiting]
        assert len(served) == len(self.bench.order)
        assert set(map(id, served)) == set(map(id, self.bench.order))
        assert all(s.overtaken <= 2 * MOST_OVERTAKEN for s in self.scheduler.waiting)
        assert len(self.scheduler.running) <= BATCH
        assert all(sequence.kv is not None for sequence in self.scheduler.running)
        assert all(sequence.kv is None for sequence in self.scheduler.waiting)

    @invariant()
    def memory_stays_in_its_bounds(self) -> None:
        assert self.bench.kv.charged <= BLOCKS * self.bench.block
        assert self.bench.kv.held_tokens <= BLOCKS * KV_BLOCK

    def teardown(self) -> None:
        work = sum(s.pending + s.request.params.max_tokens for s in self.bench.order)
        for _ in range(10 * work + 10):
            if not len(self.scheduler):
                break
            self.bench.step(5 if self.allowed else None)
        assert not self.bench.order
        assert self.bench.kv.held_tokens == 0
        self.bench.kv.clear()
        assert self.bench.kv.charged == 0


Requests.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestRequests = Requests.TestCase


def begun(bench: Bench, sequences: list[Sequence]) -> list[int]:
    """In which order they begin, as one after the other runs empty."""
    order: list[int] = []
    while bench.order:
        bench.step()
        order += [
            number
            for number, sequence in enumerate(sequences)
            if number not in order and (sequence in bench.ended or sequence.kv is not None)
        ]
    return order


def test_the_newest_of_those_that_somebody_waits_for_goes_first() -> None:
    """But nobody is passed for ever, and what nobody waits for goes in order of arrival."""
    bench = Bench(budget=64, batch=1)
    bench.add(0, 20, 3)
    bench.step()
    order = begun(bench, [bench.add(3, 30 + i, 3, interactive=i % 4 == 3) for i in range(16)])
    assert order.index(15) < order.index(11) < order.index(7)
    plain = [number for number in order if number % 4 != 3]
    assert plain == sorted(plain)

    bench = Bench(budget=64, batch=1)
    bench.add(0, 20, 3)
    bench.step()
    old = bench.add(3, 30, 3)
    passed = 0
    while old.kv is None and old in bench.order:
        bench.add(3, 30, 1, interactive=True)
        bench.step()
        passed += 1
    assert MOST_OVERTAKEN <= passed <= 2 * MOST_OVERTAKEN


def test_who_begins_like_another_waits_for_it_and_holds_nobody_up() -> None:
    bench = Bench(budget=64, batch=8)
    first = bench.add(0, 300, 5)
    bench.step()
    twin = bench.add(0, 300, 5)
    other = bench.add(3, 30, 5)
    score = bench.add(0, 300, 5, score=True)
    ran: list[Sequence] = []
    while first.pending > 1:
        ran += [item.sequence for item in bench.step()]
        if first.pending > 1:
            assert twin.kv is None
    while twin in bench.order:
        bench.step()
    assert any(sequence is other for sequence in ran)
    assert twin.cached == 299
    assert score.cached == 0  # each of its tokens has to have logits


def test_a_small_allowance_lets_everybody_have_a_turn() -> None:
    bench = Bench(budget=64, batch=8)
    sequences = [bench.add(i % 4, 30 + i, 100) for i in range(6)]
    while any(sequence.pending > 1 for sequence in sequences):
        bench.step()
    before = [sequence.completion_length for sequence in sequences]
    for _ in range(9):
        work = bench.step(2)
        assert [item.count for item in work] == [1, 1]
    gained = [
        sequence.completion_length - count
        for sequence, count in zip(sequences, before, strict=True)
    ]
    assert gained == [3] * 6


@pytest.mark.parametrize("allowance", [1, 2, 3, 8, 40])
def test_prompts_go_on_while_others_decode(allowance: int) -> None:
    bench = Bench(budget=64, batch=8)
    for i in range(4):
        bench.add(i, 20, 1000)
    while any(sequence.pending > 1 for sequence in bench.order) or bench.scheduler.waiting:
        bench.step()
    late = bench.add(3, 100, 5)
    steps = 0
    while not late.completion_length:
        assert sum(item.count for item in bench.step(allowance)) <= allowance
        steps += 1
    assert steps <= -(-100 // max(1, min(allowance // 4, CHUNK // 4))) + 1


def test_an_allowance_that_is_enough_changes_nothing() -> None:
    def run(allowance: int | None) -> list[list[tuple[str, int]]]:
        bench, rng, steps = Bench(), random.Random(3), []
        for _ in range(12):
            bench.add(rng.randrange(4), rng.randrange(1, 300), rng.randrange(1, 30))
        while bench.order:
            steps.append([(item.sequence.request.id, item.count) for item in bench.step(allowance)])
        return steps

    assert run(None) == run(BATCH + CHUNK)


def test_the_youngest_gives_way_and_loses_nothing() -> None:
    bench = Bench(budget=4)
    old = bench.add(0, 100, 100)
    young = bench.add(3, 100, 100)
    gave_way = False
    while bench.order:
        bench.step()
        if young.kv is None and young in bench.order and young.completion_length:
            gave_way = True
            assert old in bench.scheduler.running or old in bench.ended
            assert bench.scheduler.waiting[0] is young
    assert gave_way
    assert [sequence.completion_length for sequence in bench.ended] == [100, 100]
    assert bench.ended == [old, young]
    assert np.array_equal(young.tokens[:100], TEXTS[3][:100])
