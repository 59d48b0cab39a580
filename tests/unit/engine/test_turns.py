"""Steps that are given time: on a real model whose tokens take as long as a clock says."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_engines import local_engine
from oracles.packed_models import PackedMemory
from oracles.smallest_model import SHAPE
from oracles.tiny_models import MemorySource, tokenizer

from subllm.engine.backend import Choices, Chunk, TokenArray
from subllm.engine.backends.native import NativeBackend
from subllm.engine.engine import LocalEngine
from subllm.engine.reading import LEAST, ReadingSpeed
from subllm.engine.request import Request, SamplingParams, TokenEvent, TokenLogprob
from subllm.errors import UsageError
from subllm.models.arch.registry import spec_from_config
from subllm.models.arch.tensors import tensor_shapes

CONTEXT = 4200
WEIGHTS, TOKEN, SCORED, BEFORE = 0.03, 0.004, 0.007, 5e-7
"""Seconds: of a step, of each token, of each that is scored, of each token for one before it."""


def model() -> PackedMemory:
    spec = spec_from_config({**SHAPE, "max_position_embeddings": CONTEXT})
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.normal(0, 0.3, shape).astype(np.float32)
        for name, shape in tensor_shapes(spec).items()
    }
    return PackedMemory(MemorySource(spec, tensors), "int8")


MODEL = model()


class Clocked(NativeBackend):
    """`slowness` times as slow as said above."""

    now = 0.0
    slowness = 1.0

    def step(self, chunks: Sequence[Chunk]) -> list[Choices]:
        self._wait(TOKEN, [(chunk.start, len(chunk.tokens)) for chunk in chunks])
        return super().step(chunks)

    def score(
        self, kv: int, start: int, tokens: TokenArray, targets: TokenArray, top: int
    ) -> list[TokenLogprob]:
        self._wait(SCORED, [(start, len(tokens))])
        return super().score(kv, start, tokens, targets, top)

    def _wait(self, token: float, work: list[tuple[int, int]]) -> None:
        seconds = WEIGHTS + sum(count * (token + BEFORE * start) for start, count in work)
        self.now += seconds * self.slowness


def engine_on(backend: Clocked, **options: Any) -> LocalEngine:
    options = {"context_length": CONTEXT, "kv_tokens": 3 * CONTEXT, **options}
    return local_engine(backend, tokenizer(), clock=lambda: backend.now, **options)


def backend() -> Clocked:
    return Clocked(MODEL, threads=1)


def prompt_of(seed: int, length: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(0, 64, length).tolist())


def asked(name: str, prompt: tuple[int, ...], tokens: int, **more: Any) -> Request:
    return Request(name, prompt, SamplingParams(max_tokens=tokens, ignore_eos=True), **more)


def tokens_of(events: Sequence[TokenEvent]) -> list[int]:
    return [token for event in events for token in event.tokens]


@pytest.mark.parametrize("score", [None, 0])
@pytest.mark.parametrize("slowness", [0.2, 1.0, 5.0])
def test_a_stream_goes_on_beside_whatever_is_long(score: int | None, slowness: float) -> None:
    clocked = backend()
    clocked.slowness = slowness
    engine = engine_on(clocked)
    engine.add(asked("stream", prompt_of(0, 20), 3000))
    for _ in range(5):
        engine.step(seconds=0.1)
    long = prompt_of(1, 4000)
    engine.add(Request("long", long, SamplingParams(max_tokens=5), score=score))
    gaps: list[float] = []
    told: list[TokenEvent] = []
    while not told or told[-1].finish_reason is None:
        before = clocked.now
        events = engine.step(seconds=0.1)
        gaps.append(clocked.now - before)
        assert any(event.request_id == "stream" for event in events)
        told += [event for event in events if event.request_id == "long"]
    # A step of the stream alone takes that long on the slowest.
    alone = (WEIGHTS + LEAST * SCORED) * slowness
    # A score is a pass of its own, which is learned from the first.
    assert max(gaps[2:]) <= max(0.1, alone + WEIGHTS * slowness) * 1.3
    if slowness < 5:
        assert sorted(gaps)[len(gaps) // 2] > 0.05  # it has the time that there is
    if score is not None:
        entries = [entry for event in told for entry in event.logprobs]
        assert [entry.token for entry in entries] == list(long[1:])


def test_alone_a_prompt_has_the_pieces_that_its_time_holds() -> None:
    clocked = backend()
    engine = engine_on(clocked, prefill_chunk=512)
    engine.add(asked("long", prompt_of(1, 4000), 1))
    steps = []
    while engine.has_work():
        before = clocked.now
        engine.step(seconds=1.0)
        steps.append(clocked.now - before)
    assert max(steps[1:]) <= 1.1  # the first tells how fast the model is
    assert len(steps) < 35


def test_a_first_token_that_was_slow_does_not_hold_prompts_up() -> None:
    """Weights come from disk when they are first read."""
    clocked = backend()
    engine = engine_on(clocked)
    engine.add(asked("stream", prompt_of(0, 20), 3000))
    while not engine.step(seconds=0.1):
        pass
    clocked.slowness = 30.0
    engine.step(seconds=0.1)
    clocked.slowness = 1.0
    engine.add(asked("long", prompt_of(1, 1000), 1))
    steps = 0
    while not any(event.request_id == "long" for event in engine.step(seconds=0.1)):
        steps += 1
    assert steps < 110  # 4 tokens in each would be 250


def test_a_machine_that_slows_down_is_noticed_at_once() -> None:
    speed = ReadingSpeed(10**9)
    assert speed.tokens(0.1, decoding=False) == LEAST  # not known yet: little
    for _ in range(20):
        speed.read(100, 0.1, decoding=False)
        speed.decoded(0.03)
    assert 95 <= speed.tokens(0.1, decoding=False) <= 100
    assert 65 <= speed.tokens(0.1, decoding=True) <= 70
    speed.read(100, 1.0, decoding=False)
    assert speed.tokens(0.1, decoding=False) == 10
    for _ in range(20):
        speed.scored(10, 0.2)
    assert speed.score_weight == pytest.approx(2.0, rel=1e-3)
    assert speed.tokens(1e-6, decoding=True) == LEAST


WORK = st.tuples(
    st.integers(0, 2),  # which text
    st.integers(2, 300),
    st.integers(1, 8),
    st.sampled_from(["plain", "plain", "interactive", "score"]),
    st.integers(0, 3),  # steps before the next
    st.sampled_from([False, False, True]),  # given up at the end of these
)


@settings(max_examples=40, deadline=None)
@given(
    works=st.lists(WORK, min_size=1, max_size=8),
    seconds=st.sampled_from([0.02, 0.1, 0.35, 2.0]),
    batch=st.integers(1, 4),
    room=st.sampled_from([0, 1]),
    seed=st.integers(0, 10**6),
)
def test_however_it_is_cut_everybody_gets_what_is_theirs(
    works: list[tuple[int, int, int, str, int, bool]],
    seconds: float,
    batch: int,
    room: int,
    seed: int,
) -> None:
    rng = random.Random(seed)
    clocked = backend()
    engine = engine_on(clocked, context_length=320, kv_tokens=room * 2000, max_batch=batch)
    found: dict[str, list[TokenEvent]] = {}

    def step() -> None:
        clocked.slowness = rng.choice([0.3, 1.0, 4.0])
        for event in engine.step(seconds=rng.choice([None, seconds])):
            found.setdefault(event.request_id, []).append(event)

    requests = []
    for number, (text, length, tokens, kind, steps, given_up) in enumerate(works):
        prompt = prompt_of(text, length)
        score = 2 if kind == "score" else None
        request = asked(str(number), prompt, tokens, score=score, interactive=kind == "interactive")
        requests.append((request, given_up))
        engine.add(request)
        for _ in range(steps):
            step()
        if given_up:
            engine.abort(str(number))
    while engine.has_work():
        step()
    assert engine.held_kv_tokens == 0
    for request, given_up in requests:
        events = found[request.id]
        last = [event.finish_reason for event in events]
        assert last[:-1] == [None] * (len(last) - 1)
        if last[-1] == "abort":
            assert given_up
            continue
        alone = engine_on(backend(), context_length=320)
        assert last[-1] == "length"
        if request.score is None:
            alone.add(asked("alone", request.prompt, request.params.max_tokens))
            want: list[int] = []
            while alone.has_work():
                want += tokens_of(alone.step())
            assert tokens_of(events) == want
        else:
            entries = [entry for event in events for entry in event.logprobs]
            for entry, other in zip(entries, alone.score(request.prompt, 2)[1:], strict=True):
                assert other is not None
                assert entry.token == other.token
                assert entry.logprob == pytest.approx(other.logprob, abs=1e-5)
                assert [token for token, _ in entry.top] == [token for token, _ in other.top]


def test_a_score_out_of_range_is_refused() -> None:
    engine = engine_on(backend())
    with pytest.raises(UsageError, match="out of range"):
        engine.add(Request("a", (1, 2), score=1000))
    engine.add(Request("b", (1,), score=0))
    assert [event.finish_reason for event in engine.step()] == ["length"]
