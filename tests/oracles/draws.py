"""Logits and draws that samplers are tried on."""

from __future__ import annotations

from typing import Any

import numpy as np

from subllm.engine.backend import Draw
from subllm.engine.request import SamplingParams

VOCAB = 5000  # more than the part that is sorted first
FILTERS: list[dict[str, Any]] = [
    {},
    {"top_k": 1},
    {"top_k": 40},
    {"top_k": 2000},
    {"top_k": 2 * VOCAB},
    {"top_p": 0.9},
    {"top_p": 0.9999},
    {"top_p": 0.0},
    {"min_p": 0.05},
    {"min_p": 1e-6},
    {"min_p": 1e-12},
    {"min_p": 1.0},
    {"top_k": 50, "top_p": 0.7, "min_p": 0.1},
    {"top_k": 2000, "top_p": 0.99, "min_p": 1e-5},
    {"top_p": 0.95, "min_p": 0.01},
]
CHANGES: list[dict[str, Any]] = [
    {"repetition_penalty": 1.3},
    {"presence_penalty": 0.7},
    {"frequency_penalty": 0.5},
    {"logit_bias": ((3, 5.0), (9, -100.0), (3, 1.0))},
    {
        "repetition_penalty": 0.8,
        "presence_penalty": -1.0,
        "frequency_penalty": 0.2,
        "logit_bias": ((1, 2.0),),
    },
]


def logits_of(seed: int, spread: float = 3.0, size: int = VOCAB) -> np.ndarray:
    """Values with few bits, so that many are equal, as bf16 logits are."""
    values = np.random.default_rng(seed).normal(size=size) * spread
    return (np.round(values * 8) / 8).astype(np.float32)


def draw_of(uniform: float = 0.5, seed: int = 0, **params: Any) -> Draw:
    """With a history of 60 tokens, 25 of them the prompt's, ten of them twice."""
    history = np.random.default_rng(seed).integers(0, VOCAB, 60).astype(np.int32)
    history[40:50] = history[30:40]
    return Draw(SamplingParams(**params), history, prompt_length=25, uniform=uniform)
