"""Sampling in torch against the numpy oracle, and the oracle against its words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from oracles.allowed_draws import PARAMS, SHARES, check_allowed
from oracles.draws import CHANGES, FILTERS, VOCAB, draw_of, logits_of

from subllm.engine import sampler
from subllm.engine.backend import Draw
from subllm.engine.backends.torch import sampling
from subllm.engine.request import SamplingParams
from subllm.errors import EngineError, LogitsError, SubllmError, UsageError


@pytest.mark.parametrize("temperature", [0.2, 1.0, 40.0])
@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_filters_and_draws_equal_the_oracle(filters: dict[str, Any], temperature: float) -> None:
    for seed in range(3):
        logits = logits_of(seed)
        params = SamplingParams(temperature=temperature, **filters)
        want_ids, want_weights = sampler.kept(logits, params)
        ids, weights = sampling.kept(torch.from_numpy(logits), params)
        np.testing.assert_array_equal(ids.numpy(), want_ids)
        np.testing.assert_allclose(weights.numpy(), want_weights, rtol=1e-12)
        for uniform in (0.0, 0.3, 0.77, 0.999, 1 - 2**-53):
            draw = draw_of(uniform, temperature=temperature, **filters)
            assert sampling.sample(torch.from_numpy(logits), draw) == sampler.sample(logits, draw)


@pytest.mark.parametrize("temperature", [1e-30, 1e-307, 1e-308, 5e-324])
@pytest.mark.parametrize("filters", [{}, {"top_k": 40}, {"top_p": 0.9}, {"min_p": 0.1}], ids=str)
def test_the_smallest_temperatures_draw_among_the_best(
    filters: dict[str, Any], temperature: float
) -> None:
    logits = logits_of(3)
    logits[[17, 4000]] = logits.max() + 1  # two that are equally likely
    for draw_sample in (
        lambda draw: sampler.sample(logits, draw),
        lambda draw: sampling.sample(torch.from_numpy(logits), draw),
    ):
        drawn = [
            draw_sample(draw_of(uniform, temperature=temperature, **filters))
            for uniform in (0.0, 0.3, 0.77, 1 - 2**-53)
        ]
        assert drawn == [17, 17, 4000, 4000]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_adjusted_logits_equal_the_oracle(changes: dict[str, Any]) -> None:
    logits, draw = logits_of(7), draw_of(**changes)
    want = sampler.adjust(logits, draw)
    assert (want != logits).any()
    np.testing.assert_array_equal(sampling.adjust(torch.from_numpy(logits), draw).numpy(), want)
    assert sampling.sample(torch.from_numpy(logits), draw) == int(want.argmax())


def test_logits_without_order_are_an_error() -> None:
    nothing = np.full(100, np.nan, np.float32)
    for logits in (nothing, np.full(100, -np.inf, np.float32), np.float32([1, np.inf, 2])):
        for params in (SamplingParams(), SamplingParams(temperature=1.0, top_k=3)):
            draw = Draw(params, np.empty(0, np.int32), 0, 0.5)
            for draw_sample in (
                lambda draw, logits=logits: sampler.sample(logits, draw),
                lambda draw, logits=logits: sampling.sample(torch.from_numpy(logits), draw),
                lambda _, logits=logits: sampling.logprobs(torch.from_numpy(logits)[None], [0], 2),
            ):
                with pytest.raises(LogitsError, match="not finite"):
                    draw_sample(draw)
    some = logits_of(0)
    some[::2] = np.nan
    for params in ({}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 4000}):
        draw = draw_of(**params)
        assert sampling.sample(torch.from_numpy(some), draw) == sampler.sample(some, draw)
        assert sampler.sample(some, draw) % 2 == 1


def test_what_penalties_look_at() -> None:
    logits = np.array([2.0, -2.0, 2.0, -2.0, 1.0], dtype=np.float32)
    history = np.array([0, 1, 2, 3, 3], dtype=np.int32)
    params = SamplingParams(repetition_penalty=2.0)
    halved = sampler.adjust(logits, Draw(params, history, 2, 0.0))
    np.testing.assert_array_equal(halved, [1.0, -4.0, 1.0, -4.0, 1.0])
    params = SamplingParams(presence_penalty=1.0, frequency_penalty=0.25)
    lowered = sampler.adjust(logits, Draw(params, history, 2, 0.0))
    np.testing.assert_array_equal(lowered, [2.0, -2.0, 0.75, -3.5, 1.0])


def test_filters_in_small() -> None:
    probabilities = np.array([0.1, 0.4, 0.1, 0.3, 0.1])
    logits = np.log(probabilities).astype(np.float32)

    def ids(**params: Any) -> list[int]:
        return sampler.kept(logits, SamplingParams(temperature=1.0, **params))[0].tolist()

    assert ids() == [1, 3, 0, 2, 4]
    assert ids(top_k=3) == [1, 3, 0]
    assert ids(top_p=0.39) == [1]
    assert ids(top_p=0.69) == [1, 3]
    assert ids(top_k=2, top_p=0.6) == [1, 3]  # of the 0.7 that top_k left, 0.4 are 57 %
    assert ids(top_k=2, top_p=0.57) == [1]
    assert ids(min_p=0.7) == [1, 3]
    assert ids(min_p=0.8) == [1]


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0])
    uniforms = (np.arange(4000) + 0.5) / 4000
    tokens = [
        sampling.sample(logits, draw_of(float(uniform), temperature=1.0)) for uniform in uniforms
    ]
    shares = np.bincount(tokens, minlength=4) / len(tokens)
    np.testing.assert_allclose(shares, logits.softmax(0).numpy(), atol=1e-3)


def test_logprobs_are_of_the_raw_logits() -> None:
    logits = torch.from_numpy(np.stack([logits_of(1), logits_of(2)]))
    want = logits.double().log_softmax(-1)
    for row, got in enumerate(sampling.logprobs(logits, [17, 4999], 5)):
        assert got.token == (17, 4999)[row]
        assert got.logprob == pytest.approx(float(want[row, got.token]), abs=1e-4)
        order = np.argsort(-logits[row].numpy(), kind="stable")[:5]
        assert [token for token, _ in got.top] == order.tolist()
        for token, value in got.top:
            assert value == pytest.approx(float(want[row, token]), abs=1e-4)


@pytest.mark.parametrize(
    ("error", "params"),
    [
        (UsageError, {"temperature": -0.1}),
        (UsageError, {"temperature": float("nan")}),
        (UsageError, {"temperature": float("inf")}),
        (UsageError, {"top_p": 1.5}),
        (UsageError, {"min_p": -0.5}),
        (UsageError, {"top_k": -1}),
        (UsageError, {"max_tokens": -1}),
        (UsageError, {"repetition_penalty": 0.0}),
        (UsageError, {"logprobs": VOCAB + 1}),
        (UsageError, {"logit_bias": ((1, float("inf")),)}),
        (EngineError, {"logit_bias": ((VOCAB, 1.0),)}),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(error: type[SubllmError], params: dict[str, Any]) -> None:
    sampler.check_params(SamplingParams(), VOCAB)
    with pytest.raises(error, match=next(iter(params))):
        sampler.check_params(SamplingParams(**params), VOCAB)


@pytest.mark.parametrize("params", PARAMS, ids=str)
@pytest.mark.parametrize("share", SHARES)
def test_only_what_is_allowed_is_drawn(params: dict[str, Any], share: float) -> None:
    def sample(logits: np.ndarray, draw: Draw) -> int:
        return sampling.sample(torch.from_numpy(logits), draw)

    for seed in range(3):
        check_allowed(sample, logits_of(seed), draw_of(0.7, seed, **params), share, seed)
