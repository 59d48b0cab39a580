"""A position's result does not depend on how many others run in its step: the ground that
exact speculation stands on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from oracles.packed_models import packed_oracle
from oracles.tiny_models import CONFIGS, VOCAB, source

from subllm.engine.backend import Chunk, Draw
from subllm.engine.backends.native import NativeBackend
from subllm.engine.backends.torch.backend import TorchBackend
from subllm.engine.request import SamplingParams

WIDTHS = (1, 2, 3, 5, 8, 9, 16)


def tokens_of(count: int, seed: int = 1) -> npt.NDArray[np.int32]:
    return np.random.default_rng(seed).integers(0, VOCAB, count).astype(np.int32)


def one_by_one(
    backend: NativeBackend, tokens: npt.NDArray[np.int32], start: int, width: int = 1
) -> npt.NDArray[np.float32]:
    """Logits from `start` on, `width` positions a step; all before it in one."""
    kv = backend.kv_open()
    if start:
        backend.logits(kv, 0, tokens[:start])
    parts = [backend.logits(kv, i, tokens[i : i + width]) for i in range(start, len(tokens), width)]
    backend.kv_close(kv)
    return np.concatenate(parts)


def test_where_it_is_promised() -> None:
    for values, promised in (("bf16", False), ("int8", True), ("int4", True)):
        packed, reference = packed_oracle("qwen2", values)
        assert NativeBackend(packed).exact_widths == promised
        assert not NativeBackend(packed, exact=True).exact_widths
    assert not TorchBackend(source(reference), device="cpu").exact_widths


@pytest.mark.parametrize("values", ["int8", "int4"])
@pytest.mark.parametrize("family", CONFIGS)
def test_logits_are_the_same_bits_for_every_width(family: str, values: str) -> None:
    packed, _ = packed_oracle(family, values, "dense" if family != "qwen2" else "8:16")
    backend = NativeBackend(packed)
    tokens = tokens_of(100)
    want = one_by_one(backend, tokens, 20)
    for width in WIDTHS[1:]:
        np.testing.assert_array_equal(one_by_one(backend, tokens, 20, width), want)
    whole = backend.logits(backend.kv_open(), 0, tokens)  # prefill is but a wide step
    np.testing.assert_array_equal(whole[20:], want)


@pytest.mark.parametrize("kv", ["bfloat16", "int8"])
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_also_where_the_range_of_keys_is_split(family: str, kv: Any) -> None:
    packed, _ = packed_oracle(
        family,
        "int8",
        max_position_embeddings=4096,
        **{"sliding_window": 300} if family == "gemma3" else {},
    )
    backend = NativeBackend(packed, kv=kv)
    tokens = tokens_of(2090)
    for start, stop in ((1000, 1050), (2035, 2090)):
        want = one_by_one(backend, tokens[:stop], start)
        for width in WIDTHS[1:]:
            np.testing.assert_array_equal(one_by_one(backend, tokens[:stop], start, width), want)
        whole = backend.logits(backend.kv_open(), 0, tokens[:stop])
        np.testing.assert_array_equal(whole[start:], want)


PARAMS = (
    SamplingParams(),
    SamplingParams(temperature=1.3, logprobs=2),
    SamplingParams(temperature=0.9, top_k=9, top_p=0.9, repetition_penalty=1.4),
    SamplingParams(presence_penalty=0.4, frequency_penalty=0.7, logprobs=0),
    SamplingParams(logit_bias=((3, 2.0), (5, -4.0)), repetition_penalty=0.8),
)


def draws_of(
    tokens: npt.NDArray[np.int32], lengths: Sequence[int], params: SamplingParams
) -> tuple[Draw, ...]:
    uniforms = np.random.default_rng(7).random(len(tokens) + 1).tolist()
    return tuple(Draw(params, tokens[:n], 12, uniforms[n]) for n in lengths)


@pytest.mark.parametrize("kind", ["native", "torch"])
@pytest.mark.parametrize("params", PARAMS, ids=str)
def test_the_draws_of_a_chunk_are_those_of_single_steps(params: SamplingParams, kind: str) -> None:
    packed, reference = packed_oracle("qwen2", "int8")
    backend: Any = NativeBackend(packed)
    if kind == "torch":
        backend = TorchBackend(source(reference), device="cpu", dtype="float32")
    tokens, other = tokens_of(60), tokens_of(40, seed=2)
    kv = backend.kv_open()
    backend.step([Chunk(kv, 0, tokens[:20])])
    want = []
    for end in range(21, 61):
        ((choice,),) = backend.step(
            [Chunk(kv, end - 1, tokens[end - 1 : end], draws_of(tokens, [end], params))]
        )
        want.append(choice)
    got = []
    for start in range(20, 60, 20):  # more draws than fit one product, beside another chunk
        beside = backend.kv_open()
        stop = start + 20
        found, none, mixed = backend.step(
            [
                Chunk(
                    kv,
                    start,
                    tokens[start:stop],
                    draws_of(tokens, range(start + 1, stop + 1), params),
                ),
                Chunk(backend.kv_open(), 0, other[:5]),
                Chunk(beside, 0, other, draws_of(other, [39, 40], params)),
            ]
        )
        got += found
        assert none == ()
        assert len(mixed) == 2
    assert [choice.token for choice in got] == [choice.token for choice in want]
    if params.logprobs is not None:
        for one, other_one in zip(got, want, strict=True):
            assert one.logprob.logprob == pytest.approx(other_one.logprob.logprob, abs=1e-5)
            assert kind == "torch" or one == other_one
