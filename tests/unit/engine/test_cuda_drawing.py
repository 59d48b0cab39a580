"""Draws of a step, all kinds together on the device, against the numpy oracle one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from oracles.allowed_draws import PARAMS, SHARES, check_allowed

from subllm.engine import sampler
from subllm.engine.backend import Choice, Draw
from subllm.engine.backends.cuda.drawing import chosen
from subllm.engine.backends.cuda.steps import Found
from subllm.engine.request import SamplingParams
from subllm.errors import LogitsError
from subllm.kernels.products.triton_ops import greedy

VOCAB = 5000
EVERY: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0},
    {"temperature": 0.2, "top_k": 40},
    {"temperature": 1.0, "top_k": 2 * VOCAB},
    {"temperature": 40.0, "top_p": 0.9},
    {"temperature": 1.0, "top_p": 0.0},
    {"temperature": 1.0, "min_p": 0.05},
    {"temperature": 1.0, "top_k": 50, "top_p": 0.7, "min_p": 0.1},
    {"temperature": 5e-324},
    {"repetition_penalty": 1.3},
    {"presence_penalty": 0.7, "temperature": 1.0},
    {"frequency_penalty": 0.5},
    {"logit_bias": ((3, 5.0), (9, -100.0), (3, 1.0))},
    {"repetition_penalty": 0.8, "presence_penalty": -1.0, "logit_bias": ((1, 2.0),)},
    {"temperature": 1.1, "logprobs": 3, "frequency_penalty": 0.2},
    {"logprobs": 0},
    {"temperature": 1.0, "top_p": 0.95, "min_p": 0.01, "repetition_penalty": 1.1},
    {"temperature": 0.7, "top_k": 1},
]


def logits_of(seed: int) -> np.ndarray:
    """Values with few bits, so that many are equal, as bf16 logits are."""
    values = np.random.default_rng(seed).normal(size=VOCAB) * 3
    return (np.round(values * 8) / 8).astype(np.float32)


def draw_of(uniform: float, seed: int = 0, **params: Any) -> Draw:
    history = np.random.default_rng(seed).integers(0, VOCAB, 60 + seed).astype(np.int32)
    history[40:50] = history[30:40]
    return Draw(SamplingParams(**params), history, prompt_length=25, uniform=uniform)


def found_of(logits: np.ndarray) -> Found:
    there = torch.from_numpy(logits)
    return Found(there, greedy(there))


@pytest.mark.parametrize("uniform", [0.0, 0.3, 0.999, 1 - 2**-53])
def test_a_step_of_all_kinds_equals_the_oracle(uniform: float) -> None:
    logits = np.stack([logits_of(i) for i in range(len(EVERY))])
    drawn = [(row, draw_of(uniform, row, **params)) for row, params in enumerate(EVERY)]
    drawn.append((2, replace(drawn[3][1], estimate=True)))  # a row may be drawn from twice
    before = logits.copy()
    for choice, (row, draw) in zip(chosen(found_of(logits), drawn), drawn, strict=True):
        assert isinstance(choice, Choice)
        assert choice.token == sampler.sample(before[row], draw)
        told = draw.params.logprobs is not None or draw.estimate
        assert (choice.logprob is not None) == told
    np.testing.assert_array_equal(logits, before)  # a graph's own memory
    assert chosen(found_of(logits), []) == []


@pytest.mark.parametrize("params", PARAMS, ids=str)
@pytest.mark.parametrize("share", SHARES)
def test_only_what_is_allowed_is_drawn(params: dict[str, Any], share: float) -> None:
    def sample(logits: np.ndarray, draw: Draw) -> int:
        free = draw_of(0.4, temperature=1.0)  # beside it, whatever it is
        both = np.stack([logits, logits])
        one, two = chosen(found_of(both), [(0, draw), (1, free)])
        assert isinstance(two, Choice) and two.token == sampler.sample(logits, free)
        if isinstance(one, LogitsError):
            raise one
        return one.token

    check_allowed(sample, logits_of(3), draw_of(0.7, 3, **params), share, 3)


def test_logits_without_order_fail_alone() -> None:
    logits = np.stack([logits_of(0)] * 4)
    logits[1] = np.nan
    logits[2, 7] = np.inf
    for params in ({}, {"temperature": 1.0}, {"logprobs": 1}, {"presence_penalty": 1.0}):
        found = chosen(found_of(logits), [(row, draw_of(0.5, **params)) for row in range(4)])
        assert [isinstance(choice, LogitsError) for choice in found] == [False, True, True, False]
