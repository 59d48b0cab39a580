"""Completions whose first characters are known."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from local_engines import local_engine
from oracles.tiny_models import oracle, source

from subllm.engine.backends.torch import TorchBackend
from subllm.engine.begun import Begun
from subllm.engine.engine import LocalEngine
from subllm.engine.request import Request, SamplingParams, TokenEvent
from subllm.models.text.tokenizer import Tokenizer
from unit.models.text.tokenizer_samples import byte_level


@functools.cache
def reference(vocabulary: int) -> object:
    return oracle("qwen2", vocab_size=vocabulary)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """With tokens of several bytes."""
    return byte_level(tmp_path_factory.mktemp("tokens") / "t.gguf", "qwen2")[1]


@pytest.fixture
def engine(tokenizer: Tokenizer) -> LocalEngine:
    weights = source(reference(tokenizer.vocab_size))
    backend = TorchBackend(weights, device="cpu", dtype="float32", threads=1)
    return local_engine(backend, tokenizer, context_length=256)


def drain(engine: LocalEngine, request: Request) -> list[TokenEvent]:
    engine.add(request)
    events = []
    while engine.has_work():
        events += engine.step()
    return events


def by_hand(tokenizer: Tokenizer, prompt: tuple[int, ...], begun: str, count: int) -> list[int]:
    """Greedy, with a look at every token for as long as anything of `begun` is left."""
    model, rest, ids = reference(tokenizer.vocab_size), begun.encode(), list(prompt)
    for _ in range(count):
        logits = model(torch.tensor([ids])).logits[0, -1]  # type: ignore[operator]
        for token in range(len(logits)) if rest else ():
            spelt = tokenizer.token_bytes(token)
            fits = spelt and (spelt.startswith(rest) or rest.startswith(spelt))
            if not fits or token in tokenizer.coder.added_ids:
                logits[token] = -torch.inf
        ids.append(int(logits.argmax()))
        rest = rest[len(tokenizer.token_bytes(ids[-1])) :]
    return ids[len(prompt) :]


@pytest.mark.parametrize("begun", ["re", " retur", "    ", "(val", "日", "x", "qu", ""])
def test_it_begins_so_and_tells_what_is_new(
    tokenizer: Tokenizer, engine: LocalEngine, begun: str
) -> None:
    prompt = tuple(tokenizer.encode_plain("def f(values):\n"))
    params = SamplingParams(max_tokens=12, ignore_eos=True)
    ids = tuple(tokenizer.encode_plain(begun))
    events = drain(engine, Request("r", prompt, params, begun=ids))
    assert events[-1].prompt_tokens == len(prompt) + len(ids)
    expected = by_hand(tokenizer, prompt, begun, 20)
    known = 0
    while len(b"".join(map(tokenizer.token_bytes, expected[: known + 1]))) <= len(begun.encode()):
        known += 1  # these say nothing new, and are not counted
    new = expected[known : known + 12]
    assert [token for event in events for token in event.tokens] == new
    assert events[-1].completion_tokens == 12 and events[-1].finish_reason == "length"
    whole = b"".join(map(tokenizer.token_bytes, expected[:known] + new))
    assert whole.startswith(begun.encode())
    told = "".join(event.text for event in events)
    assert begun + told == whole.decode("utf-8", "replace")


def test_where_the_context_ends_there_is_no_room_for_what_is_known(
    tokenizer: Tokenizer, engine: LocalEngine
) -> None:
    params = SamplingParams(max_tokens=6, ignore_eos=True)
    prompt = tuple(tokenizer.encode_plain("x")) * 249
    begun = tuple(tokenizer.encode_plain("(val"))
    (*_, last) = drain(engine, Request("r", prompt, params, begun=begun))
    assert last.finish_reason == "length" and last.completion_tokens < 6


def test_a_stop_is_not_looked_for_in_what_is_known(
    tokenizer: Tokenizer, engine: LocalEngine
) -> None:
    prompt = tuple(tokenizer.encode_plain("def f(values):\n"))
    retur = tuple(tokenizer.encode_plain(" retur"))
    params = SamplingParams(max_tokens=12, ignore_eos=True, stop=("ret",))
    events = drain(engine, Request("r", prompt, params, begun=retur))
    params = SamplingParams(max_tokens=12, ignore_eos=True)
    free = drain(engine, Request("s", prompt, params, begun=retur))
    assert events[-1].finish_reason == "length"
    assert "".join(e.text for e in events) == "".join(e.text for e in free)


def test_once_it_is_written_anything_may_come(tokenizer: Tokenizer) -> None:
    begun = Begun(tokenizer, tokenizer.encode_plain("ab"))
    assert not begun.done
    first = tokenizer.encode_plain("a")[0]
    begun.take(first)
    assert not begun.done
    second = np.flatnonzero(tokenizer.along(b"b")).tolist()
    bits = begun.allowed()
    assert [t for t in range(tokenizer.vocab_size) if bits[t // 32] >> t % 32 & 1] == second
    begun.take(second[-1])
    assert begun.done
