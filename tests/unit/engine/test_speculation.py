"""Speculation changes nothing but the number of steps."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_engines import local_engine
from oracles.packed_models import packed_oracle
from oracles.proposers import Eager, Scripted
from oracles.tiny_models import END, VOCAB, tokenizer

from subllm.engine.backend import KV_BLOCK, Draw
from subllm.engine.backends.native import NativeBackend
from subllm.engine.draft import Draft
from subllm.engine.engine import LocalEngine
from subllm.engine.request import Request, SamplingParams, TokenEvent
from subllm.engine.sampler import adjust, kept
from subllm.engine.speculative.drafting import SLABS, WINDOW
from subllm.engine.speculative.proposer import Proposer
from subllm.errors import DraftError, EngineError
from subllm.models.text.tokenizer import Tokenizer
from subllm.models.text.tokenizer_files import TokenizerFacts

PACKED, _ = packed_oracle("qwen2", "int8", "8:16")
OTHER, _ = packed_oracle("qwen2", "int8", "8:16", seed=1)
TOKENIZER = tokenizer()
CONTEXT = 256


def engine_on(**options: Any) -> LocalEngine:
    options = {"context_length": CONTEXT, "stop_tokens": ("<|mark|>",), **options}
    return local_engine(NativeBackend(PACKED, threads=1), TOKENIZER, **options)


def draft_on(packed: Any = OTHER, **options: Any) -> Draft:
    return Draft("small", "", NativeBackend(packed, threads=1), TOKENIZER)


def prompt_of(seed: int, length: int = 20) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(0, 256, length).tolist())


def ask(key: str, prompt: Sequence[int], speculation: str = "auto", **params: Any) -> Request:
    given = {"max_tokens": 24, "ignore_eos": True, **params}
    return Request(key, tuple(prompt), SamplingParams(**given), speculation=speculation)  # type: ignore[arg-type]


def drain(engine: LocalEngine, limit: int | None = None) -> tuple[dict[str, list[TokenEvent]], int]:
    """All events by request, and the number of steps."""
    events: dict[str, list[TokenEvent]] = {}
    for steps in range(3000):
        if not engine.has_work():
            return events, steps
        for event in engine.step(limit):
            events.setdefault(event.request_id, []).append(event)
    raise AssertionError("the engine never ran empty")


def run(
    engine: LocalEngine, *requests: Request, limit: int | None = None
) -> dict[str, list[TokenEvent]]:
    for request in requests:
        engine.add(request)
    return drain(engine, limit)[0]


def plain(events: Sequence[TokenEvent]) -> list[TokenEvent]:
    """What must not depend on speculation. (Prefix reuse depends on when requests run.)"""
    return [
        replace(
            event,
            accepted_prediction_tokens=0,
            rejected_prediction_tokens=0,
            cached_tokens=0,
            error=None if event.error is None else type(event.error)(),
        )
        for event in events
    ]


def tokens_of(events: Sequence[TokenEvent]) -> list[int]:
    return [token for event in events for token in event.tokens]


def alone(*requests: Request) -> dict[str, list[TokenEvent]]:
    """Of plain decoding, each request by itself."""
    found = {}
    for request in requests:
        found |= run(engine_on(), replace(request, speculation="off"))
    return found


def check_counts(events: Sequence[TokenEvent]) -> None:
    last = events[-1]
    for earlier, later in itertools.pairwise(events):
        assert earlier.accepted_prediction_tokens <= later.accepted_prediction_tokens
        assert earlier.rejected_prediction_tokens <= later.rejected_prediction_tokens
    assert last.accepted_prediction_tokens <= last.completion_tokens == len(tokens_of(events))


VARIANTS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 1.1, "seed": 5},
    "filtered": {"temperature": 0.9, "top_k": 40, "top_p": 0.9, "min_p": 0.02, "seed": 6},
    "penalties": {
        "temperature": 0.7,
        "seed": 7,
        "repetition_penalty": 1.3,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.4,
    },
    "greedy penalties": {"repetition_penalty": 1.4, "frequency_penalty": 0.9},
    "bias": {"logit_bias": ((65, 3.0), (66, 2.5), (67, -9.0)), "temperature": 1.0, "seed": 8},
    "logprobs": {"logprobs": 3, "temperature": 1.0, "seed": 9},
    "stop text": {
        "stop": ("A", "bc", "\x07"),
        "logit_bias": ((65, 6.0),),
        "temperature": 1.0,
        "seed": 3,
    },
    "stop token": {
        "stop_token_ids": (65, 66),
        "logit_bias": ((65, 5.0), (66, 5.0)),
        "temperature": 1.0,
        "seed": 4,
    },
    "end": {"ignore_eos": False, "logit_bias": ((END, 5.5),), "temperature": 1.0, "seed": 2},
    "one token": {"max_tokens": 1},
    "two tokens": {"max_tokens": 2},
    "to the context's end": {"max_tokens": CONTEXT - 20},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("right", [0.0, 0.6, 0.9, 1.0])
def test_any_guesses_give_the_text_of_plain_decoding(variant: str, right: float) -> None:
    request = ask("r", prompt_of(1), **VARIANTS[variant])
    want = alone(request)["r"]
    proposer = Scripted({"r": [*tokens_of(want), END, 65]}, VOCAB, right, seed=len(variant))
    engine = engine_on(proposers=[proposer], pace=Eager())
    engine.add(request)
    events, steps = drain(engine)
    assert plain(events["r"]) == plain(want)
    check_counts(events["r"])
    if right == 1.0 and len(want) > 8:
        assert steps < 2 + len(want) / 3
        assert events["r"][-1].accepted_prediction_tokens > len(want) / 2
    if right == 0.0:
        assert events["r"][-1].accepted_prediction_tokens < 9
    counts = engine.speculation.sources.get("ngram")
    if counts is not None:
        assert counts.accepted == events["r"][-1].accepted_prediction_tokens
        assert counts.drafted - counts.accepted == events["r"][-1].rejected_prediction_tokens
    for guesses, tokens in proposer.learnt:
        assert len(tokens) <= len(guesses) + 1
    assert proposer.ended == ["r"]
    # What is kept for reuse holds accepted tokens only: the same text goes on from it.
    again = replace(request, id="again", prompt=(*request.prompt, *tokens_of(want)[:10], 7))
    if len(want) > 12 and request.params.max_tokens < 100:
        assert plain(run(engine, again)["again"]) == plain(alone(again)["again"])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("twin", [True, False])
def test_the_real_proposers_too(variant: str, twin: bool) -> None:
    """A draft that is the model itself, and one that knows nothing."""
    request = ask("r", prompt_of(2) * 2, **VARIANTS[variant])
    if request.params.max_tokens == CONTEXT - 20:
        request = replace(request, prompt=request.prompt[:20])
    request = replace(request, prediction=(65, 66, 67, 68), session="s")
    want = alone(request)["r"]
    for speculation in ("auto", "ngram", "draft"):
        engine = engine_on(pace=Eager(), draft=draft_on(PACKED if twin else OTHER))
        for turn in "ab":  # the second time the session knows the text
            events = run(engine, replace(request, id=turn, speculation=speculation))  # type: ignore[arg-type]
            got = [replace(event, request_id="r") for event in plain(events[turn])]
            assert got == plain(want)
            check_counts(events[turn])
        if speculation == "draft" and twin and len(want) > 8:
            counts = engine.speculation.sources["draft"]
            assert counts.accepted > 0.9 * counts.drafted > 8
        engine.close()


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_many_requests_in_any_order(data: st.DataObject) -> None:
    """Mixed batches, little memory, aborts, allowances."""
    requests = []
    for i in range(data.draw(st.integers(1, 5), "requests")):
        variant = data.draw(st.sampled_from(sorted(VARIANTS)), "variant")
        length = data.draw(st.integers(1, 90), "length")
        request = ask(
            f"{i}", prompt_of(data.draw(st.integers(0, 2)), 90)[:length], **VARIANTS[variant]
        )
        most = min(request.params.max_tokens, CONTEXT - length)
        request = replace(request, params=replace(request.params, max_tokens=most))
        speculation: Any = data.draw(st.sampled_from(["auto", "off", "ngram"]))
        requests.append(replace(request, speculation=speculation, session="s"))
    want = alone(*requests)
    scripts = {key: tokens_of(events) for key, events in want.items()}
    right = data.draw(st.sampled_from([0.2, 0.8, 1.0]))
    proposers: list[Proposer] = [Scripted(scripts, VOCAB, right, data.draw(st.integers(0, 99)))]
    engine = engine_on(
        proposers=None if data.draw(st.booleans()) else proposers,
        pace=Eager(data.draw(st.integers(1, 4))),
        draft=draft_on(PACKED) if data.draw(st.booleans()) else None,
        max_batch=data.draw(st.integers(1, 4)),
        prefill_chunk=data.draw(st.sampled_from([16, 64])),
    )
    limit = data.draw(st.sampled_from([None, 1, 3, 9]))
    aborted = data.draw(st.sampled_from([None, *(request.id for request in requests)]))
    events: dict[str, list[TokenEvent]] = {}
    waiting, arrivals = list(requests), random.Random(data.draw(st.integers(0, 999)))
    for step in range(4000):
        if waiting and arrivals.random() < 0.3:
            engine.add(waiting.pop(0))
        if not waiting and not engine.has_work():
            break
        if step == 12 and aborted is not None:
            engine.abort(aborted)
        for event in engine.step(limit):
            events.setdefault(event.request_id, []).append(event)
        assert engine._kv.charged <= engine.kv_budget
    for request in requests:
        found = events[request.id]
        check_counts(found)
        if found[-1].finish_reason == "abort":
            tokens = tokens_of(found)
            assert tokens == scripts[request.id][: len(tokens)]
        else:
            assert plain(found) == plain(want[request.id])
    engine.close()


def test_a_bad_guess_does_not_spoil_its_request() -> None:
    """One that leads to logits that are not finite is as wrong as any other."""
    wild = ask("r", prompt_of(1), logit_bias=((3, 1e39),))  # fails with its first token
    assert isinstance(run(engine_on(pace=Eager()), wild)["r"][-1].error, EngineError)


# --- a draft model --------------------------------------------------------------------------


def test_a_draft_with_other_tokens_is_refused() -> None:
    facts = dict(TOKENIZER.facts.to_dict())
    definition = json.loads(TOKENIZER._definition())
    vocabulary = definition["model"]["vocab"]
    one, two = list(vocabulary)[:2]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    other = Tokenizer.from_definition(json.dumps(definition), TokenizerFacts.from_dict(facts))
    engine = engine_on(draft=draft_on())
    wrong = replace(draft_on(), name="wrong", tokenizer=other)
    with pytest.raises(DraftError, match=r"wrong cannot draft for tiny.*choose"):
        engine.set_draft(wrong)
    assert engine.speculation.draft == "small"
    wrong.backend.step([])  # still open: the caller's
    with pytest.raises(DraftError):
        engine_on(draft=wrong)


@pytest.mark.parametrize("sizes", [(VOCAB, VOCAB + 24), (VOCAB + 24, VOCAB)], ids=str)
def test_padded_vocabularies_of_other_sizes(sizes: tuple[int, int]) -> None:
    """The tokens of the tokenizer come first in both; what pads them is never proposed, and a
    text that has such tokens all the same is not drafted for."""
    target, draft = (packed_oracle("qwen2", "int8", vocab_size=size)[0] for size in sizes)

    def engine(**options: Any) -> LocalEngine:
        backend = NativeBackend(target, threads=1)
        return local_engine(backend, TOKENIZER, context_length=CONTEXT, **options)

    for bias in ((), tuple((token, 30.0) for token in range(VOCAB, sizes[0]))):
        request = ask("r", prompt_of(1), speculation="draft", logit_bias=bias, max_tokens=40)
        want = run(engine(), replace(request, speculation="off"))["r"]
        found = engine(draft=draft_on(draft), pace=Eager())
        assert plain(run(found, request)["r"]) == plain(want)
        if not bias:
            assert found.speculation.sources["draft"].drafted > 0


def test_a_draft_comes_and_goes_while_requests_run() -> None:
    request = ask("r", prompt_of(4), max_tokens=60)
    want = alone(request)["r"]
    engine = engine_on(pace=Eager(), draft=draft_on(PACKED))
    empty = engine.resident_bytes - engine._speculator.resident_bytes
    engine.add(request)
    events: list[TokenEvent] = []
    for step in range(100):
        if not engine.has_work():
            break
        if step in (3, 7):
            engine.set_draft(None)
            assert engine.speculation.draft is None
        if step == 5:
            engine.set_draft(draft_on(OTHER))
        events += engine.step()
    assert plain(events) == plain(want)
    assert engine.speculation.sources["draft"].drafted > 0
    assert engine._kv.held_tokens == 0
    assert engine.resident_bytes - empty == 2 * KV_BLOCK * engine._backend.kv_bytes_per_token


def test_two_sequences_are_followed_side_by_side() -> None:
    """Each has its own memory, of which a common begin is computed once."""
    requests = [
        ask(key, prompt_of(4, 100), "draft", temperature=0.9, seed=i) for i, key in enumerate("ab")
    ]
    want = alone(*requests)
    draft = draft_on(PACKED)
    engine = engine_on(pace=Eager(2), draft=draft, kv_bytes=1 << 24)
    ran: list[int] = []
    step = draft.backend.step
    draft.backend.step = lambda chunks: (
        ran.append(sum(len(c.tokens) for c in chunks)) or step(chunks)
    )  # type: ignore
    got = run(engine, *requests)
    for key, events in want.items():
        assert plain(got[key]) == plain(events)
    counts = engine.speculation.sources["draft"]
    assert counts.accepted > 0.9 * counts.drafted > 20
    assert sum(ran) < 100 + 2 * 24 + 3 * counts.rounds + counts.drafted
    # The next request has the same id and another, shorter text.
    again = ask("a", prompt_of(5, 10), "draft")
    assert plain(run(engine, again)["a"]) == plain(alone(again)["a"])


def test_a_draft_that_fails_is_let_go() -> None:
    request = ask("r", prompt_of(4), max_tokens=100)
    want = alone(request)["r"]
    draft = draft_on(PACKED)
    engine = engine_on(pace=Eager(), draft=draft)
    engine.add(request)
    events = [event for _ in range(4) for event in engine.step()]
    draft.backend.close()
    events += drain(engine)[0]["r"]
    assert plain(events) == plain(want)
    assert engine.speculation.draft is None


def test_the_drafts_memory_is_bounded_and_gives_way() -> None:
    """It moves on as the text grows, is counted, and never makes a request wait."""
    context = 3 * WINDOW
    target, _ = packed_oracle("qwen2", "int8", max_position_embeddings=context)
    small, _ = packed_oracle("qwen2", "int8", seed=1, max_position_embeddings=context)

    def engine(**options: Any) -> LocalEngine:
        backend = NativeBackend(target, threads=1)
        return local_engine(backend, TOKENIZER, context_length=context, **options)

    token = engine()._backend.kv_bytes_per_token  # of both: they are of the same shape
    window = WINDOW * token
    request = ask("r", prompt_of(0, 700), "draft", max_tokens=1000)
    want = run(engine(), replace(request, speculation="off"))["r"]
    found = engine(pace=Eager(), draft=draft_on(small), kv_bytes=4 * context * token)
    weights = found._speculator.resident_bytes
    found.add(request)
    events, moved = [], set()
    while found.has_work():
        events += found.step()
        draft = found._speculator._draft
        assert draft is not None
        held = draft.resident_bytes - weights
        assert held <= SLABS * window
        assert found._kv.charged <= found.kv_budget
        assert found._kv.charged >= held
        moved |= {slab.origin for slab in draft._slabs}
    assert plain(events) == plain(want)
    assert len(moved) > 2
    assert found.speculation.sources["draft"].drafted > 100
    # No more memory than a request may need in all: the draft has what is left of it.
    request = ask("long", prompt_of(1, context - 500), "draft", max_tokens=500)
    want = run(engine(), replace(request, speculation="off"))["long"]
    tight = engine(pace=Eager(), draft=draft_on(small))
    assert plain(run(tight, ask("r", prompt_of(0, 30), "draft"))["r"])
    assert tight._speculator.resident_bytes > weights
    assert plain(run(tight, request)["long"]) == plain(want)
    assert tight._kv.charged <= tight.kv_budget == context * token
    assert tight._speculator.resident_bytes == weights
    tight.kv_budget = 0
    assert tight._kv.charged <= tight.kv_budget


# --- distributions --------------------------------------------------------------------------


@pytest.mark.parametrize("right", [0.0, 0.5, 1.0])
def test_tokens_are_distributed_as_the_model_says(right: float) -> None:
    """Chi-square of the tokens after those that were guessed, over seeds, against the
    distributions of the numpy oracle."""
    count, prompt = 1500, prompt_of(3, 12)
    params = {"temperature": 0.3, "top_k": 5, "max_tokens": 3}
    sampling = SamplingParams(temperature=0.3, top_k=5)
    backend = NativeBackend(PACKED, threads=1)

    def distribution(*tokens: int) -> dict[int, float]:
        ids = np.array((*prompt, *tokens), np.int32)
        logits = backend.logits(backend.kv_open(), 0, ids)[-1]
        found, weights = kept(adjust(logits, Draw(sampling, ids, len(prompt), 0.0)), sampling)
        return dict(zip(found.tolist(), weights / weights.sum(), strict=True))

    likely: list[int] = []
    wanted = []
    for _ in range(3):
        wanted.append(distribution(*likely))
        likely.append(max(wanted[-1], key=wanted[-1].__getitem__))
    proposer = Scripted({f"{i}": likely for i in range(count)}, VOCAB, right, seed=1)
    engine = engine_on(proposers=[proposer], pace=Eager())
    seen: list[Counter[int]] = [Counter() for _ in wanted]
    accepted = 0
    for i in range(count):
        events = run(engine, ask(f"{i}", prompt, seed=i, **params))[f"{i}"]
        accepted += events[-1].accepted_prediction_tokens
        for place, token in enumerate(tokens_of(events)):
            seen[place][token] += 1
            if token != likely[place]:
                break
    assert (accepted > 50) == (right > 0)
    for counts, chances in zip(seen, wanted, strict=True):
        total = counts.total()
        assert total > 100
        assert set(counts) <= set(chances)
        square = sum(
            (counts[token] - total * chance) ** 2 / (total * chance)
            for token, chance in chances.items()
        )
        assert square < 18.5  # 99.9 % of chi-square with 4 degrees of freedom
