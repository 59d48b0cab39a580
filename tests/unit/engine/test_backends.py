"""One suite for all backends: the engine must not see which one it has."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from local_engines import local_engine
from oracles.backends import INTERPRETED, KINDS, exact
from oracles.packed_models import packed_oracle
from oracles.tiny_models import tokenizer

from subllm.engine import sampler
from subllm.engine.backend import Chunk, Draw
from subllm.engine.engine import LocalEngine
from subllm.engine.request import Request, SamplingParams

# The interpreter takes seconds where kernels take microseconds: a smaller model, shorter texts.
SMALL = {"num_hidden_layers": 1} if INTERPRETED else {}
UNIT, TOKENS = (4, 3) if INTERPRETED else (30, 6)
PACKED, REFERENCE = packed_oracle("qwen2", "int8", "8:16", **SMALL)
pytestmark = pytest.mark.parametrize("kind", KINDS)
not_interpreted = pytest.mark.skipif(INTERPRETED, reason="takes minutes in the interpreter")
NEAR = 2e-3  # of logits with a deviation of about 1


def ids_of(seed: int, length: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(0, 256, length).tolist())


def engine_on(kind: str, **options: Any) -> LocalEngine:
    return local_engine(exact(kind, PACKED), tokenizer(), context_length=256, **options)


def run(engine: LocalEngine, *requests: Request) -> dict[str, list[int]]:
    for request in requests:
        engine.add(request)
    tokens: dict[str, list[int]] = {request.id: [] for request in requests}
    while engine.has_work():
        for event in engine.step():
            assert event.error is None
            tokens[event.request_id] += event.tokens
    return tokens


def logits_of_reference(ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        logits: np.ndarray = REFERENCE(torch.tensor([ids])).logits[0].numpy()
    return logits


def oracle_text(request: Request) -> list[int]:
    """Token by token: transformers' logits of all of it, drawn from by the numpy sampler."""
    ids, uniforms = list(request.prompt), random.Random(request.params.seed)
    for _ in range(request.params.max_tokens):
        history = np.array(ids, np.int32)
        draw = Draw(request.params, history, len(request.prompt), uniforms.random())
        ids.append(sampler.sample(logits_of_reference(ids)[-1], draw))
    return ids[len(request.prompt) :]


PARAMS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.9},
    {"temperature": 1.3, "top_k": 20, "top_p": 0.9},
    {"repetition_penalty": 1.3, "presence_penalty": 0.4, "logit_bias": ((7, 2.0), (9, -4.0))},
]


def requests() -> list[Request]:
    shared = ids_of(9, 3 * UNIT)
    return [
        Request(
            str(i),
            (shared[: UNIT * (i % 3)] if i % 2 else ()) + ids_of(i, 3 + UNIT * i // 3),
            SamplingParams(max_tokens=TOKENS, ignore_eos=True, seed=i, **params),
        )
        for i, params in enumerate(PARAMS)
    ]


def test_texts_are_those_of_the_oracle_however_requests_meet(kind: str) -> None:
    """Alone, and all together: prompts in pieces beside those that write, some of them taken
    over from others."""
    want = {request.id: oracle_text(request) for request in requests()}
    engine = engine_on(kind, max_batch=3, prefill_chunk=24)
    assert run(engine, *requests()) == want
    again = run(engine, *requests())  # their prompts are kept
    assert again == want
    engine.close()


@not_interpreted
def test_requests_that_give_way_for_memory_say_the_same(kind: str) -> None:
    backend = exact(kind, PACKED)
    engine = local_engine(backend, tokenizer(), context_length=128, kv_tokens=192)
    long = [
        Request(str(i), ids_of(20 + i, 60), SamplingParams(max_tokens=20, ignore_eos=True))
        for i in range(3)
    ]
    assert run(engine, *long) == {r.id: oracle_text(r) for r in long}


@not_interpreted
def test_scores_and_log_probabilities(kind: str) -> None:
    ids = list(ids_of(4, 100))
    want = torch.from_numpy(logits_of_reference(ids)).double().log_softmax(-1)
    engine = engine_on(kind, prefill_chunk=64)
    result = engine.score(tuple(ids), top=3)
    assert result[0] is None
    for i, entry in enumerate(result[1:], start=1):
        assert entry is not None
        assert entry.token == ids[i]
        assert entry.logprob == pytest.approx(float(want[i - 1, ids[i]]), abs=NEAR)
        assert [token for token, _ in entry.top] == want[i - 1].topk(3).indices.tolist()
    params = SamplingParams(max_tokens=1, logprobs=4, logit_bias=((7, 1000.0),))
    engine.add(Request("l", tuple(ids), params))
    events = [event for _ in range(3) for event in engine.step()]
    (logprob,) = (entry for event in events for entry in event.logprobs)
    assert (logprob.token, len(logprob.top)) == (7, 4)
    assert logprob.logprob == pytest.approx(float(want[-1, 7]), abs=NEAR)  # without bias


def test_a_fork_goes_its_own_way(kind: str) -> None:
    backend = exact(kind, PACKED)
    one, two = list(ids_of(1, 100)), list(ids_of(2, 10))
    first = backend.kv_open()
    backend.step([Chunk(first, 0, np.array(one, np.int32))])
    fork = backend.kv_fork(first, 70)
    whole = np.array(one[:70] + two, np.int32)
    draw = (Draw(SamplingParams(logprobs=2), whole, 70, 0.0),)
    ((found,),) = backend.step([Chunk(fork, 70, whole[70:], draw)])
    ((again,),) = backend.step(  # the source has kept what it had
        [
            Chunk(
                first,
                99,
                np.array(one[99:], np.int32),
                (Draw(SamplingParams(logprobs=2), np.array(one, np.int32), 1, 0.0),),
            )
        ]
    )
    for choice, ids in ((found, whole.tolist()), (again, one)):
        want = torch.from_numpy(logits_of_reference(ids)[-1]).double().log_softmax(-1)
        assert choice.token == int(want.argmax())
        assert choice.logprob.logprob == pytest.approx(float(want.max()), abs=NEAR)
    backend.kv_close(first)
    backend.kv_close(fork)
    assert backend.step([]) == []
