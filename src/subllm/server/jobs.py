"""What HTTP handlers and the engine thread say to each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from subllm.errors import SubllmError
from subllm.runtime.request import (
    Request,
    SamplingParams,
    Speculation,
    TokenEvent,
    TokenLogprob,
)


@dataclass(frozen=True)
class ModelRef:
    """A model at one version: the name may move to another manifest later."""

    name: str
    version: str


@dataclass(frozen=True)
class GenerateWork:
    """Generate what follows the token ids of `prompt`, sampled as `params` say; the rest is
    for drafting, as in `Request`."""

    prompt: tuple[int, ...]
    params: SamplingParams
    prediction: tuple[int, ...] = ()
    session: str | None = None
    speculation: Speculation = "off"

    def request(self, number: str) -> Request:
        return Request(
            number, self.prompt, self.params, self.prediction, self.session, self.speculation
        )


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
    call is TokenScores, Failed or a Generated with a finish reason. `draft` is the model
    that should draft for it, `begun` tells that it has its first token. `cancelled` may be set
    by any thread: nothing is delivered after the engine thread has seen it."""

    id: str
    model: ModelRef
    work: Request | ScoreWork
    sink: Callable[[JobEvent], None]
    draft: ModelRef | None = None
    begun: bool = False
    cancelled: bool = False
