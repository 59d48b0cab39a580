"""From logits to choices, the draws of a step together."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import torch

from subllm.engine.backend import Choice, Draw
from subllm.engine.backends.torch.sampling import logprobs, sample, without_nan
from subllm.engine.sampler import needs_adjustment
from subllm.errors import LogitsError


def choose(logits: torch.Tensor, draws: Sequence[Draw]) -> list[Choice | LogitsError]:
    """One choice for each row of float32 [rows, vocab], or why there is none."""
    peaks, best = (found.tolist() for found in without_nan(logits).max(-1))
    return [
        _choose_one(logits[row : row + 1], draw, best[row] if isfinite(peaks[row]) else None)
        for row, draw in enumerate(draws)
    ]


def _choose_one(logits: torch.Tensor, draw: Draw, best: int | None) -> Choice | LogitsError:
    """From float32 [1, vocab]. `best`: the largest, None where that is not finite."""
    if best is None:
        return LogitsError()
    wanted = 0 if draw.estimate and draw.params.logprobs is None else draw.params.logprobs
    changed = needs_adjustment(draw.params) or draw.allowed is not None
    plain = draw.params.temperature == 0.0 and not changed
    try:
        token = best if plain else sample(logits[0], draw)
    except LogitsError as error:  # bias and penalties can do that, too
        return error
    return Choice(token, None if wanted is None else logprobs(logits, [token], wanted)[0])
