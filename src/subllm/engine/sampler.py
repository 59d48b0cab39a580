"""Sampling, defined: the numpy oracle that every backend must agree with.

Tokens are ordered by adjusted logit, largest first, equal ones by lower id. Every
filter then keeps a prefix of that order, and a draw walks it: the token drawn is the
first whose cumulative probability exceeds `uniform` times the kept mass. So the same
logits, parameters and uniform number give the same token everywhere.

    logit_bias -> repetition, presence, frequency penalty -> allowed tokens -> temperature
    -> top_k -> top_p (of what top_k left) -> min_p -> draw

A temperature near 0 draws among the largest alone, as greedy does but for equal ones.
NaN is no candidate. Logits whose largest is not finite have no order and raise LogitsError.

repetition_penalty looks at prompt and completion, as its paper's users expect; the
presence and frequency penalties look at the completion only, as OpenAI's do.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from subllm.engine.backend import Draw
from subllm.engine.constraint import AllowedTokens
from subllm.engine.request import SamplingParams
from subllm.errors import EngineError, LogitsError, UsageError

FloatArray = npt.NDArray[np.float32]


def check_params(params: SamplingParams, vocab_size: int) -> None:
    """Raises UsageError for a value out of range, EngineError for unknown tokens."""
    floats = {
        "temperature": (params.temperature, 0.0, math.inf),
        "top_p": (params.top_p, 0.0, 1.0),
        "min_p": (params.min_p, 0.0, 1.0),
        "repetition_penalty": (params.repetition_penalty, 1e-6, math.inf),
        "presence_penalty": (params.presence_penalty, -math.inf, math.inf),
        "frequency_penalty": (params.frequency_penalty, -math.inf, math.inf),
    }
    for name, (value, low, high) in floats.items():
        if not math.isfinite(value) or not low <= value <= high:
            raise UsageError(f"{name} {value} is out of range; use {low:g} to {high:g}")
    for name, count in (("top_k", params.top_k), ("max_tokens", params.max_tokens)):
        if count < 0:
            raise UsageError(f"{name} {count} is negative; use 0 or more")
    if params.logprobs is not None and not 0 <= params.logprobs <= vocab_size:
        raise UsageError(f"logprobs {params.logprobs} is out of range; use 0 to {vocab_size}")
    for token, bias in params.logit_bias:
        if not 0 <= token < vocab_size:
            raise EngineError(
                f"logit_bias names token {token}, but the vocabulary has {vocab_size}"
            )
        if not math.isfinite(bias):
            raise UsageError(f"logit_bias of token {token} is not finite; use -100 to 100")


def needs_adjustment(params: SamplingParams) -> bool:
    """Whether bias or penalties change the logits at all."""
    return bool(
        params.logit_bias
        or params.repetition_penalty != 1.0
        or params.presence_penalty
        or params.frequency_penalty
    )


def forbidden(allowed: AllowedTokens, vocab: int) -> npt.NDArray[np.bool_]:
    """bool [vocab]: the tokens that are not allowed."""
    bits = np.unpackbits(allowed.astype("<u4").view(np.uint8), bitorder="little")[:vocab]
    return np.pad(bits == 0, (0, vocab - len(bits)), constant_values=True)


def adjust(logits: FloatArray, draw: Draw) -> FloatArray:
    """Bias, penalties and what is allowed, on float32 [vocab]; returns a new array."""
    params, out = draw.params, logits.astype(np.float32, copy=True)
    for token, bias in params.logit_bias:
        out[token] += np.float32(bias)
    if params.repetition_penalty != 1.0:
        seen = np.unique(draw.history)
        penalty = np.float32(params.repetition_penalty)
        out[seen] = np.where(out[seen] > 0, out[seen] / penalty, out[seen] * penalty)
    if params.presence_penalty or params.frequency_penalty:
        tokens, counts = np.unique(draw.history[draw.prompt_length :], return_counts=True)
        out[tokens] -= np.float32(params.presence_penalty)
        out[tokens] -= np.float32(params.frequency_penalty) * counts.astype(np.float32)
    if draw.allowed is not None:
        out[forbidden(draw.allowed, len(out))] = -np.inf
    return out


def kept(adjusted: FloatArray, params: SamplingParams) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """The tokens that the filters keep, in drawing order, with their weights.

    Returns (ids int64 [k], unnormalised probabilities float64 [k]).
    """
    adjusted = np.where(np.isnan(adjusted), np.float32(-np.inf), adjusted)
    order = np.argsort(-adjusted, kind="stable")
    if params.top_k:
        order = order[: params.top_k]
    distances = adjusted[order].astype(np.float64) - np.float64(adjusted[order[0]])
    with np.errstate(over="ignore"):  # a distance of infinity, which weighs nothing
        weights = np.exp(distances / params.temperature)
    count = len(order)
    if params.top_p < 1.0:
        mass = np.cumsum(weights)
        count = int(np.searchsorted(mass, params.top_p * mass[-1], side="left")) + 1
    if params.min_p > 0.0:
        count = min(count, int(np.count_nonzero(weights >= params.min_p * weights[0])))
    return order[:count], weights[:count]


def sample(logits: FloatArray, draw: Draw) -> int:
    """The token that `draw` chooses from float32 logits [vocab]. Raises LogitsError."""
    adjusted = adjust(logits, draw)
    best = int(np.argmax(np.where(np.isnan(adjusted), -np.inf, adjusted)))
    if not np.isfinite(adjusted[best]):
        raise LogitsError
    if draw.params.temperature == 0.0:
        return best
    ids, weights = kept(adjusted, draw.params)
    mass = np.cumsum(weights)
    index = int(np.searchsorted(mass, draw.uniform * mass[-1], side="right"))
    return int(ids[min(index, len(ids) - 1)])
