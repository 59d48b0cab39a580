"""The engine end to end on tiny random models."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from local_engines import local_engine
from oracles.tiny_models import END, FILL, MARK, VOCAB, oracle, source, tokenizer

from subllm.engine.backend import KV_BLOCK
from subllm.engine.backends.torch import TorchBackend
from subllm.engine.engine import LocalEngine
from subllm.engine.kv_room import KvRoom
from subllm.engine.request import Request, SamplingParams, TokenEvent
from subllm.errors import ContextLengthError, EngineBusyError, EngineError

REFERENCE = oracle("qwen2")
TOKENIZER = tokenizer()
CONTEXT = 256


def make_engine(**options: Any) -> LocalEngine:
    backend = TorchBackend(source(REFERENCE), device="cpu", dtype="float32", threads=1)
    options = {"context_length": CONTEXT, "stop_tokens": ("<|mark|>", "<|absent|>"), **options}
    return local_engine(backend, TOKENIZER, **options)


def prompt_of(seed: int, length: int = 20) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(0, 256, length).tolist())


def drain(engine: LocalEngine) -> dict[str, list[TokenEvent]]:
    events: dict[str, list[TokenEvent]] = {}
    for _ in range(2000):
        if not engine.has_work():
            return events
        for event in engine.step():
            events.setdefault(event.request_id, []).append(event)
    raise AssertionError("the engine never ran empty")


def run(engine: LocalEngine, prompt: Sequence[int], **params: Any) -> list[TokenEvent]:
    params = {"max_tokens": 12, "ignore_eos": True, **params}
    engine.add(Request("r", tuple(prompt), SamplingParams(**params)))
    return drain(engine)["r"]


def tokens_of(events: Sequence[TokenEvent]) -> list[int]:
    return [token for event in events for token in event.tokens]


def text_of(events: Sequence[TokenEvent]) -> str:
    return "".join(event.text for event in events)


def force(text: bytes | Sequence[int]) -> dict[str, Any]:
    """Parameters that make the model write exactly these tokens once each is distinct:
    a bias for each, and a penalty that forbids repeating one."""
    bias = tuple((token, 1e4 - 50 * i) for i, token in enumerate(text))
    return {"logit_bias": bias, "presence_penalty": 1e6, "max_tokens": len(text)}


def oracle_greedy(prompt: Sequence[int], count: int) -> list[int]:
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(REFERENCE(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("chunk", [512, 7])
def test_continuations_are_scored_as_whole_sequences(chunk: int) -> None:
    """And the context that they share is run once."""
    engine = make_engine(prefill_chunk=chunk)
    context = prompt_of(0, 30)
    continuations = [prompt_of(seed, length) for seed, length in ((1, 1), (2, 12), (3, 5), (4, 20))]
    run: list[int] = []
    for name in ("step", "score"):
        original = getattr(engine._backend, name)

        def counted(*given: Any, original: Any = original, name: str = name) -> Any:
            run.append(sum(len(c.tokens) for c in given[0]) if name == "step" else len(given[2]))
            return original(*given)

        setattr(engine._backend, name, counted)
    found = engine.score_after(context, continuations, top=2)
    assert sum(run) == 29 + 1 + 12 + 5 + 20
    for continuation, entries in zip(continuations, found, strict=True):
        whole = engine.score(context + continuation, top=2)[30:]
        assert [entry.token for entry in entries] == list(continuation)
        for entry, other in zip(entries, whole, strict=True):
            assert other is not None
            assert entry.logprob == pytest.approx(other.logprob, abs=1e-5)
            assert [token for token, _ in entry.top] == [token for token, _ in other.top]
    assert engine.score_after(context, [()]) == [[]]
    assert engine.held_kv_tokens == 0
    with pytest.raises(ContextLengthError, match="257 tokens do not fit"):
        engine.score_after(context, [(1,), (1,) * 227])
    with pytest.raises(EngineError, match="outside the vocabulary"):
        engine.score_after(context, [(1,), (VOCAB,)])


def test_greedy_equals_transformers_and_counts() -> None:
    prompt = prompt_of(0)
    events = run(make_engine(), prompt)
    assert tokens_of(events) == oracle_greedy(prompt, 12)
    last = events[-1]
    assert [e.finish_reason for e in events] == [None] * 11 + ["length"]
    assert (last.prompt_tokens, last.cached_tokens, last.completion_tokens) == (20, 0, 12)


def test_streamed_text_is_the_decoded_text() -> None:
    for seed in range(5):
        events = run(make_engine(), prompt_of(seed), temperature=1.5, seed=seed, max_tokens=60)
        plain = [token for token in tokens_of(events) if token < 256]
        assert text_of(events) == bytes(plain).decode("utf-8", errors="replace")


def test_characters_are_never_cut() -> None:
    events = run(make_engine(), prompt_of(0), **force("aé€😀".encode()))
    assert [event.text for event in events] == list("a") + ["", "é"] + ["", "", "€"] + [""] * 3 + [
        "😀"
    ]
    half = run(make_engine(), prompt_of(0), **force("a😀".encode()[:3]))
    assert [event.text for event in half] == ["a", "", "\ufffd"]


def test_stop_strings_across_tokens() -> None:
    events = run(make_engine(), prompt_of(0), stop=("xyz", "cd"), **force(b"abcdef"))
    assert [event.text for event in events] == ["a", "b", "", ""]
    assert (events[-1].finish_reason, events[-1].matched_stop) == ("stop", "cd")
    assert tokens_of(events) == list(b"abcd")
    held = run(make_engine(), prompt_of(0), stop=("defg",), **force(b"abcdef"))
    assert text_of(held) == "abcdef"  # the start of a stop string that never came
    assert held[-1].finish_reason == "length"


@pytest.mark.parametrize("stop", ["<|fill|>", "fill"])
def test_stop_strings_in_special_tokens(stop: str) -> None:
    events = run(make_engine(), prompt_of(0), stop=(stop,), **force([97, FILL, 98]))
    assert text_of(events) == "a"
    assert (events[-1].finish_reason, events[-1].matched_stop) == ("stop", stop)


def test_special_tokens_are_not_text() -> None:
    events = run(make_engine(), prompt_of(0), stop=("zz",), **force([97, FILL, 98]))
    assert text_of(events) == "ab"
    assert tokens_of(events) == [97, FILL, 98]


@pytest.mark.parametrize(("token", "text"), [(END, "<|end|>"), (MARK, "<|mark|>")])
def test_the_models_own_stop_tokens(token: int, text: str) -> None:
    events = run(make_engine(), prompt_of(0), ignore_eos=False, **force([97, token, 98]))
    assert (text_of(events), tokens_of(events)) == ("a", [97])
    assert (events[-1].finish_reason, events[-1].matched_stop) == ("stop", text)
    assert events[-1].completion_tokens == 1
    ignored = run(make_engine(), prompt_of(0), ignore_eos=True, **force([97, token, 98]))
    assert tokens_of(ignored) == [97, token, 98]


def test_the_requests_stop_tokens_hold_even_when_eos_is_ignored() -> None:
    events = run(make_engine(), prompt_of(0), stop_token_ids=(98,), **force(b"abc"))
    assert text_of(events) == "a"
    assert (events[-1].finish_reason, events[-1].matched_stop) == ("stop", "b")


def test_max_tokens_zero() -> None:
    engine = make_engine()
    (event,) = run(engine, prompt_of(0), max_tokens=0)
    assert (event.text, event.tokens, event.finish_reason) == ("", (), "length")
    assert event.prompt_tokens == 20


def test_a_batch_changes_nothing() -> None:
    wanted = {}
    for i in range(7):
        params = SamplingParams(
            max_tokens=10 + 3 * i, ignore_eos=True, temperature=0.9 * (i % 2), seed=i, logprobs=2
        )
        wanted[f"{i}"] = Request(f"{i}", prompt_of(i, 5 + 11 * i), params)
    alone = {}
    for key, request in wanted.items():
        engine = make_engine()
        engine.add(request)
        alone[key] = drain(engine)[key]
    engine = make_engine(max_batch=3, prefill_chunk=16)
    events: dict[str, list[TokenEvent]] = {}
    for request in wanted.values():
        engine.add(request)
        for event in engine.step():  # the others are already under way
            events.setdefault(event.request_id, []).append(event)
    for key, more in drain(engine).items():
        events.setdefault(key, []).extend(more)
    for key in wanted:
        assert tokens_of(events[key]) == tokens_of(alone[key])
        assert text_of(events[key]) == text_of(alone[key])
        for got, want in zip(events[key], alone[key], strict=True):
            for a, b in zip(got.logprobs, want.logprobs, strict=True):
                assert a.logprob == pytest.approx(b.logprob, abs=1e-3)
                assert [t for t, _ in a.top] == [t for t, _ in b.top]


@pytest.mark.parametrize("allowance", [1, 3, 20])
def test_an_allowance_costs_steps_only(allowance: int) -> None:
    requests = [
        Request(f"{i}", prompt_of(i, 5 + 30 * i), SamplingParams(max_tokens=8, ignore_eos=True))
        for i in range(4)
    ]
    texts = []
    for limit in (None, allowance):
        engine = make_engine(max_batch=3)
        for request in requests:
            engine.add(request)
        events: dict[str, list[TokenEvent]] = {}
        while engine.has_work():
            for event in engine.step(limit):
                events.setdefault(event.request_id, []).append(event)
        texts.append({key: tokens_of(found) for key, found in events.items()})
    assert texts[0] == texts[1]


def test_the_kv_budget_is_in_bytes_and_one_context_at_least() -> None:
    token = make_engine()._backend.kv_bytes_per_token
    assert make_engine().kv_budget == CONTEXT * token
    assert make_engine(kv_tokens=1000).kv_budget == 1024 * token  # whole blocks
    assert make_engine(kv_bytes=10**6).kv_budget == 10**6 // (KV_BLOCK * token) * KV_BLOCK * token
    engine = make_engine(kv_bytes=2 * CONTEXT * token)
    empty = engine.resident_bytes
    for seed in range(4):
        run(engine, prompt_of(seed, 100))
    assert engine.resident_bytes - empty == 4 * 2 * KV_BLOCK * token  # kept for reuse
    engine.kv_budget = 1
    assert engine.kv_budget == CONTEXT * token
    assert engine.resident_bytes - empty == CONTEXT * token
    assert len(tokens_of(run(engine, prompt_of(9, 200), max_tokens=56))) == 56


def test_engines_in_one_room_write_what_they_write_alone() -> None:
    """Ten requests on two engines in the room of one context and a half: some wait, some start
    over, prefixes of the other engine are dropped."""
    room = KvRoom(3 * CONTEXT // 2 * make_engine()._backend.kv_bytes_per_token)
    engines = [make_engine(max_batch=3), make_engine(max_batch=3)]
    for engine in engines:
        engine.share_kv(room)
    asked = {f"{i}": prompt_of(i % 7, 40 + 19 * i) for i in range(10)}
    for i, (name, prompt) in enumerate(asked.items()):
        params = SamplingParams(max_tokens=3 + 7 * (i % 3), ignore_eos=True)
        engines[i % 2].add(Request(name, prompt, params))
    got: dict[str, list[int]] = {}
    for _ in range(3000):
        for engine in engines:
            for event in engine.step():
                assert event.error is None
                got.setdefault(event.request_id, []).extend(event.tokens)
            assert room.charged <= room.budget
        if not any(engine.has_work() for engine in engines):
            break
    assert room.running == 0
    for i, (name, prompt) in enumerate(asked.items()):
        assert got[name] == tokens_of(run(make_engine(), prompt, max_tokens=3 + 7 * (i % 3)))
    engines[0].add(Request("x", asked["0"], SamplingParams(max_tokens=1)))
    engines[0].step()
    engines[0].close()
    assert room.charged == engines[1]._kv.charged
    engines[1].close()
    assert room.charged == 0


def test_seeds_reproduce() -> None:
    params = {"temperature": 1.2, "max_tokens": 20, "top_p": 0.95}
    one, two, other = (
        tokens_of(run(make_engine(), prompt_of(1), seed=s, **params)) for s in (5, 5, 6)
    )
    assert one == two
    assert one != other


def test_the_requests_of_one_prompt_share_its_prefill() -> None:
    engine = make_engine()
    prompt = prompt_of(3, 40)
    for i in range(3):
        params = SamplingParams(max_tokens=6, temperature=1.0, seed=i, ignore_eos=True)
        engine.add(Request(f"{i}", prompt, params))
    together = drain(engine)
    assert [together[f"{i}"][0].cached_tokens for i in range(3)] == [0, 39, 39]
    for i in range(3):
        alone = run(make_engine(), prompt, temperature=1.0, seed=i, max_tokens=6)
        assert tokens_of(together[f"{i}"]) == tokens_of(alone)


def test_memory_pressure_costs_time_only() -> None:
    """Four requests that together need more than the budget: the young ones give way."""
    engine = make_engine(context_length=3 * KV_BLOCK, keep_prefixes=2)
    requests = [
        Request(f"{i}", prompt_of(i, 50), SamplingParams(max_tokens=90, ignore_eos=True))
        for i in range(4)
    ]
    peak = 0
    for request in requests:
        engine.add(request)
    events: dict[str, list[TokenEvent]] = {}
    while engine.has_work():
        for event in engine.step():
            events.setdefault(event.request_id, []).append(event)
        backend = engine._backend
        peak = max(peak, backend.resident_bytes - backend._model.weights.nbytes)
    assert peak <= 3 * KV_BLOCK * backend.kv_bytes_per_token
    for i, request in enumerate(requests):
        got = tokens_of(events[f"{i}"])
        assert len(got) == 90
        with torch.no_grad():  # all steps in one pass
            best = REFERENCE(torch.tensor([[*request.prompt, *got]])).logits[0].argmax(-1)
        assert got == best[len(request.prompt) - 1 : -1].tolist()


@pytest.mark.parametrize("steps", [0, 1, 4])  # waiting, in the prefill, decoding
def test_abort_frees_memory_in_any_phase(steps: int) -> None:
    engine = make_engine(prefill_chunk=16, max_batch=1, keep_prefixes=0)
    empty = engine.resident_bytes
    engine.add(Request("a", prompt_of(0, 40), SamplingParams(max_tokens=50, ignore_eos=True)))
    engine.add(Request("b", prompt_of(1, 40), SamplingParams(max_tokens=3, ignore_eos=True)))
    seen = [event for _ in range(steps) for event in engine.step()]
    assert len(seen) == max(0, steps - 2)
    assert (engine.held_kv_tokens > 0) == (steps > 0)
    engine.abort("a")
    engine.abort("unknown")
    assert engine.held_kv_tokens == 0
    assert engine.resident_bytes == empty
    events = drain(engine)
    assert [e.finish_reason for e in events["a"]] == ["abort"]
    assert events["a"][0].completion_tokens == len(seen)
    assert tokens_of(events["b"]) == oracle_greedy(prompt_of(1, 40), 3)
    assert engine.resident_bytes == empty


def test_a_kept_prefix_is_used_and_memory_stays_bounded() -> None:
    engine = make_engine(keep_prefixes=2)
    prompt = prompt_of(0, 100)
    first = run(engine, prompt)
    assert first[-1].cached_tokens == 0
    again = run(engine, prompt)
    assert again[-1].cached_tokens == 99
    assert tokens_of(again) == tokens_of(first)
    longer = run(engine, [*prompt, *tokens_of(first), 1, 2, 3])
    assert longer[-1].cached_tokens == 111  # the last token of a completion never ran
    sizes = set()
    for seed in range(8):
        run(engine, prompt_of(seed + 1, 100))
        sizes.add(engine.resident_bytes)
    assert len(sizes) <= 2
    assert engine.held_kv_tokens == 0


@functools.cache
def fresh(prompt: tuple[int, ...]) -> list[int]:
    """What an engine that has served nothing before writes, 5 tokens."""
    return tokens_of(run(make_engine(), prompt, max_tokens=5))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 90), st.booleans()), max_size=7))
def test_reusing_prefixes_does_not_change_results(
    steps: list[tuple[int, int, bool]],
) -> None:
    """Prompts cut from a few texts, some aborted half way, as editors do."""
    texts = [prompt_of(0, 90), prompt_of(0, 60) + prompt_of(1, 30), prompt_of(2, 90)]
    texts.append(prompt_of(0, 20) + prompt_of(3, 70))
    engine = make_engine(keep_prefixes=3, context_length=2 * KV_BLOCK, prefill_chunk=32)
    for text, length, aborted in steps:
        prompt = texts[text][:length]
        if aborted:
            engine.add(Request("x", prompt, SamplingParams(max_tokens=8)))
            for _ in range(1 + length // 32):
                engine.step()
            engine.abort("x")
            drain(engine)
        got = run(engine, prompt, max_tokens=5)
        assert tokens_of(got) == fresh(prompt)


def test_score_equals_transformers() -> None:
    engine = make_engine(prefill_chunk=32)
    tokens = prompt_of(4, 150)
    with torch.no_grad():
        want = REFERENCE(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
    result = engine.score(tokens, top=3)
    assert len(result) == 150
    assert result[0] is None
    for i, entry in enumerate(result[1:], start=1):
        assert entry is not None
        assert entry.token == tokens[i]
        assert entry.logprob == pytest.approx(float(want[i - 1, tokens[i]]), abs=1e-4)
        assert [token for token, _ in entry.top] == want[i - 1].topk(3).indices.tolist()
    assert engine.held_kv_tokens == 0
    assert engine.score(tokens[:1]) == [None]


def test_scoring_between_steps_disturbs_nobody() -> None:
    engine = make_engine(context_length=2 * KV_BLOCK)
    engine.add(Request("a", prompt_of(0), SamplingParams(max_tokens=12, ignore_eos=True)))
    events = [*engine.step(), *engine.step(), *engine.step()]
    engine.score(prompt_of(5, 120))
    events += drain(engine)["a"]
    assert tokens_of(events) == oracle_greedy(prompt_of(0), 12)


def test_what_is_refused() -> None:
    engine = make_engine(max_batch=1, queue_limit=1)
    params = SamplingParams(max_tokens=16)
    with pytest.raises(ContextLengthError, match="context of 256"):
        engine.add(Request("a", prompt_of(0, 241), params))
    with pytest.raises(ContextLengthError):
        engine.score(prompt_of(0, 257))
    for prompt in ((1, VOCAB), (-1, 2)):
        with pytest.raises(EngineError, match="outside the vocabulary"):
            engine.add(Request("a", prompt, params))
    with pytest.raises(EngineError, match="no tokens"):
        engine.add(Request("a", (), params))
    assert not engine.has_work()
    engine.add(Request("a", prompt_of(0, 240), params))
    with pytest.raises(EngineError, match="in use"):
        engine.add(Request("a", prompt_of(0), params))
    engine.add(Request("b", prompt_of(0), params))
    with pytest.raises(EngineBusyError, match="try again"):
        engine.add(Request("c", prompt_of(0), params))
    assert set(drain(engine)) == {"a", "b"}


def test_close_frees_everything() -> None:
    engine = make_engine()
    run(engine, prompt_of(0, 100))
    engine.add(Request("a", prompt_of(0), SamplingParams(max_tokens=9)))
    engine.step()
    backend = engine._backend
    engine.close()
    assert not backend._slabs
    assert not engine.has_work()
