"""What drawing a token takes, and what it tells beside the token."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen. temperature 0 is greedy.

    Order: logit_bias, penalties (repetition, presence, frequency), temperature,
    top_k, top_p, min_p, draw. top_k 0, top_p 1 and min_p 0 switch a filter off.
    seed None draws one. logprobs: how many alternatives to report (None: none).
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()  # beside the model's own
    ignore_eos: bool = False
    logprobs: int | None = None


@dataclass(frozen=True)
class TokenLogprob:
    """A token with its log-probability (natural log) under the unmodified logits,
    and the `top` alternatives, best first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
