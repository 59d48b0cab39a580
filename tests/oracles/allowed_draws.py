"""Drawing among the tokens that a grammar allows: a sampler against the oracle's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from subllm.engine import sampler
from subllm.engine.backend import Draw
from subllm.errors import LogitsError

PARAMS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0},
    {"temperature": 2.0, "top_k": 50},
    {"temperature": 1.0, "top_p": 0.9},
    {"logit_bias": ((7, 50.0),), "presence_penalty": 1.0},
]
SHARES = [0.0, 0.001, 0.5, 0.999]
"""Of the tokens that are allowed, beside one that is."""


def check_allowed(
    sample: Callable[[np.ndarray, Draw], int],
    logits: np.ndarray,
    draw: Draw,
    share: float,
    seed: int,
) -> None:
    """Only what is allowed is drawn, the oracle's token; where nothing is, the request fails."""
    # The last words of the mask are left out.
    chosen = np.random.default_rng(seed).random(len(logits) - 40) < share
    chosen[5] = True
    bits = np.packbits(np.pad(chosen, (0, -len(chosen) % 32)), bitorder="little")
    masked = replace(draw, allowed=bits.view(np.uint32))
    token = sample(logits, masked)
    assert token == sampler.sample(logits, masked)
    assert token < len(chosen) and chosen[token]
    nothing = replace(draw, allowed=np.zeros(3, np.uint32))
    for one in (sample, sampler.sample):
        with pytest.raises(LogitsError):
            one(logits, nothing)
