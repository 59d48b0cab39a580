"""What HTTP handlers and the engine thread say to each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from subllm.engine.constraint import Constraint
from subllm.engine.request import (
    Request,
    SamplingParams,
    Speculation,
    TokenEvent,
    TokenLogprob,
)
from subllm.errors import SubllmError
from subllm.models.text.hole_end import Hole


@dataclass(frozen=True)
class ModelRef:
    """A model at one version: the name may move to another manifest later."""

    name: str
    version: str


@dataclass(frozen=True)
class TimeLimits:
    """Seconds after which a completion ends as it stands, with finish_reason "length": `total`
    from its arrival, `predict` from its first token."""

    total: float | None = None
    predict: float | None = None


NO_LIMITS = TimeLimits()


@dataclass(frozen=True)
class GenerateWork:
    """Generate what follows the token ids of `prompt`, sampled as `params` say, within
    `limits`; the rest is as in `Request`. `keep_alive`: see `Job`."""

    prompt: tuple[int, ...]
    params: SamplingParams
    prediction: tuple[int, ...] = ()
    session: str | None = None
    speculation: Speculation = "off"
    interactive: bool = False
    limits: TimeLimits = NO_LIMITS
    keep_alive: float | None = None
    constraint: Constraint | None = None
    begun: tuple[int, ...] = ()
    hole: Hole | None = None

    def request(self, number: str) -> Request:
        return Request(
            number,
            self.prompt,
            self.params,
            self.prediction,
            self.session,
            self.speculation,
            interactive=self.interactive,
            constraint=self.constraint,
            begun=self.begun,
            hole=self.hole,
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
    that should draft for it, `begun` tells that it has its first token, `until` when it ends at
    the latest (by the worker's clock), `scores` what is known of a score, `keep_alive` how many
    seconds the model shall stay loaded once nobody uses it, from now on (None: as before).
    `cancelled` may be set by any thread: nothing is delivered after the engine thread has seen
    it."""

    id: str
    model: ModelRef
    work: Request | ScoreWork
    sink: Callable[[JobEvent], None]
    draft: ModelRef | None = None
    limits: TimeLimits = NO_LIMITS
    begun: bool = False
    until: float | None = None
    scores: list[TokenLogprob] = field(default_factory=list)
    keep_alive: float | None = None
    cancelled: bool = False

    def is_over(self, now: float) -> bool:
        return self.until is not None and self.until <= now
