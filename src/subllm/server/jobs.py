"""What HTTP handlers and the engine thread say to each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from subllm.errors import SubllmError
from subllm.runtime.request import Request, SamplingParams, TokenEvent, TokenLogprob


@dataclass(frozen=True)
class ModelRef:
    """A model at one version: the name may move to another manifest later."""

    name: str
    version: str


@dataclass(frozen=True)
class GenerateWork:
    """Generate what follows the token ids of `prompt`, sampled as `params` say."""

    prompt: tuple[int, ...]
    params: SamplingParams


@dataclass(frozen=True)
class ScoreWork:
    """Score `tokens` with `top` alternatives per position."""

    tokens: tuple[int, ...]
    top: int = 0


@dataclass(frozen=True)
class Generated:
    event: TokenEvent


@dataclass(frozen=True)
class TokenScores:
    """One entry per token; the first has nothing before it and is None."""

    logprobs: tuple[TokenLogprob | None, ...]


@dataclass(frozen=True)
class Failed:
    error: SubllmError


JobEvent = Generated | TokenScores | Failed


@dataclass(eq=False)
class Job:
    """One piece of work for one model. `sink` is called on the engine thread; the last
    call is TokenScores, Failed or a Generated with a finish reason. `cancelled` may be set
    by any thread: nothing is delivered after the engine thread has seen it."""

    id: str
    model: ModelRef
    work: Request | ScoreWork
    sink: Callable[[JobEvent], None]
    cancelled: bool = field(default=False)
