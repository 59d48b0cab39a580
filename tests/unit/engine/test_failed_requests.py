"""A request whose logits are not finite fails alone: on both backends, greedy and drawn, with
and without log-probabilities; the others of its steps go on token for token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from local_engines import local_engine
from oracles.packed_models import PackedMemory
from oracles.tiny_models import MemorySource, oracle, source, tokenizer

from subllm.engine.backend import Backend, Chunk, Draw
from subllm.engine.backends.native import NativeBackend
from subllm.engine.backends.torch import TorchBackend
from subllm.engine.engine import LocalEngine
from subllm.engine.request import Request, SamplingParams, TokenEvent
from subllm.errors import EngineError, LogitsError

BAD = 200
"""The token whose embedding is not a number."""

PARAMS: list[dict[str, Any]] = [
    {},
    {"logprobs": 3},
    {"temperature": 0.9, "seed": 5},
    {"temperature": 0.9, "seed": 5, "top_k": 20, "logprobs": 0, "presence_penalty": 0.5},
]


def model(bad: float) -> MemorySource:
    """A llama, whose head is a matrix of its own, so that only sequences with BAD suffer."""
    whole = source(oracle("llama"))
    name = whole.spec.embedding_name
    embedding = whole.tensors[name].copy()
    embedding[BAD] = bad
    return MemorySource(whole.spec, {**whole.tensors, name: embedding})


def native() -> Backend:
    """Packing refuses NaN, so the packed bytes are changed, as a broken disk would."""
    packed = PackedMemory(model(77.0))
    codes = packed.packed[packed.spec.embedding_name].data.view("<u2")
    assert np.count_nonzero(codes == 0x429A) == packed.spec.hidden_size  # 77 as bf16
    codes[codes == 0x429A] = 0x7FC0
    return NativeBackend(packed, threads=2)


def torch() -> Backend:
    return TorchBackend(model(np.nan), device="cpu", dtype="float32", threads=1)


@pytest.fixture(params=[native, torch])
def backend(request: pytest.FixtureRequest) -> Callable[[], Backend]:
    return request.param


def prompt_of(seed: int, length: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(0, 200, length).tolist())


def run(engine: LocalEngine, *requests: Request) -> dict[str, list[TokenEvent]]:
    for request in requests:
        engine.add(request)
    events: dict[str, list[TokenEvent]] = {request.id: [] for request in requests}
    while engine.has_work():
        for event in engine.step():
            events[event.request_id].append(event)
    return events


def words(events: list[TokenEvent]) -> list[tuple[str, tuple[int, ...], str | None]]:
    """All but log-probabilities, whose last digits depend on what a step held."""
    return [(event.text, event.tokens, event.finish_reason) for event in events]


def engine_on(backend: Backend, **options: Any) -> LocalEngine:
    return local_engine(backend, tokenizer(), context_length=256, **options)


@pytest.mark.parametrize("params", PARAMS, ids=str)
def test_others_go_on_as_without_it(backend: Callable[[], Backend], params: dict[str, Any]) -> None:
    def ask(name: str, prompt: tuple[int, ...]) -> Request:
        return Request(name, prompt, SamplingParams(max_tokens=12, ignore_eos=True, **params))

    good = [ask(f"good {i}", prompt_of(i, 10 + 9 * i)) for i in range(3)]
    bad = ask("bad", (*prompt_of(9, 20), BAD))
    want = run(engine_on(backend(), prefill_chunk=16), *good)
    engine = engine_on(backend(), prefill_chunk=16)
    got = run(engine, good[0], bad, *good[1:])
    (failed,) = got.pop("bad")
    assert (failed.finish_reason, failed.tokens, failed.text) == ("error", (), "")
    assert isinstance(failed.error, LogitsError)
    assert str(failed.error).startswith("the model gave logits that are not finite")
    assert {name: words(events) for name, events in got.items()} == {
        name: words(events) for name, events in want.items()
    }
    assert engine.held_kv_tokens == 0
    assert not engine.has_work()
    # What it computed serves nobody: the same text without the bad token starts anew.
    (again,) = run(engine, ask("again", (*prompt_of(9, 20), 7))).values()
    assert again[-1].finish_reason == "length"
    assert again[-1].cached_tokens == 0


def test_a_bias_out_of_bounds_fails_its_request_alone(backend: Callable[[], Backend]) -> None:
    params = SamplingParams(max_tokens=20, ignore_eos=True)
    wild = SamplingParams(max_tokens=20, ignore_eos=True, logit_bias=((3, 1e39),))
    good = Request("good", prompt_of(1, 30), params)
    want = run(engine_on(backend()), good)["good"]
    got = run(engine_on(backend()), good, Request("bad", prompt_of(2, 8), wild))
    assert words(got["good"]) == words(want)
    assert isinstance(got["bad"][-1].error, LogitsError)


def test_a_step_says_which_chunk_it_was(backend: Callable[[], Backend]) -> None:
    one = backend()
    ids = np.array([1, 2, 3], np.int32)
    bad = np.array([1, BAD, 3], np.int32)
    draw = Draw(SamplingParams(), ids, 3, 0.5)
    (first,), (second,), third = one.step(
        [
            Chunk(one.kv_open(), 0, ids, (draw,)),
            Chunk(one.kv_open(), 0, bad, (draw,)),
            Chunk(one.kv_open(), 0, bad),
        ]
    )
    assert isinstance(second, LogitsError)
    assert not isinstance(first, LogitsError)
    assert third == ()


def test_scoring(backend: Callable[[], Backend]) -> None:
    engine = engine_on(backend())
    want = engine.score(prompt_of(0, 12), top=2)
    with pytest.raises(LogitsError, match="not finite"):
        engine.score((1, 2, BAD, 3))
    assert engine.score(prompt_of(0, 12), top=2) == want
    assert issubclass(LogitsError, EngineError)
    assert engine.held_kv_tokens == 0


def test_a_score_fails_alone(backend: Callable[[], Backend]) -> None:
    good = Request("good", prompt_of(1, 30), SamplingParams(max_tokens=20, ignore_eos=True))
    want = run(engine_on(backend()), good)["good"]
    engine = engine_on(backend(), prefill_chunk=4)
    bad = Request("bad", (*prompt_of(2, 9), BAD, 7, 8), score=2)
    other = Request("other", prompt_of(0, 12), score=2)
    got = run(engine, good, bad, other)
    assert words(got["good"]) == words(want)
    assert isinstance(got["bad"][-1].error, LogitsError)
    assert [e.finish_reason for e in got["bad"]] == [None] * (len(got["bad"]) - 1) + ["error"]
    entries = [entry.token for event in got["other"] for entry in event.logprobs]
    assert entries == list(other.prompt[1:])
    assert engine.held_kv_tokens == 0
