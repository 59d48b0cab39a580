"""What goes into an engine and what comes out. No HTTP, no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from subllm.errors import EngineError

FinishReason = Literal["stop", "length", "abort", "error"]


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
class Request:
    """One completion. `prompt` holds token ids, special tokens included."""

    id: str
    prompt: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)


@dataclass(frozen=True)
class TokenLogprob:
    """A token with its log-probability (natural log) under the unmodified logits,
    and the `top` alternatives, best first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class TokenEvent:
    """One step of one request.

    text      a valid UTF-8 piece, possibly empty (bytes of an unfinished character
              and a possible start of a stop string are held back); never holds the
              stop string
    tokens    ids accepted since the last event, for counting and logprobs
    finish_reason  None until the last event of the request
    matched_stop   the stop string or token text that ended it
    error          why it ended, with finish_reason "error"
    """

    request_id: str
    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    matched_stop: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    error: EngineError | None = None


class Engine(Protocol):
    """Many requests on one loaded model. One thread calls it; nothing here blocks
    longer than one forward step.

    kv_budget  KV memory, in bytes, of all requests together; room for one context is
           always granted. May be changed between steps: kept prefixes give way at once,
           running requests as they grow

    add    raises ContextLengthError, EngineBusyError; tokens outside the vocabulary
           raise EngineError
    step   one scheduling step: prefill a chunk or decode one token of every running
           request, `allowance` tokens in all at most (None: as many as the engine is made
           for); returns what happened, empty when there is no work. A request that
           fails ends with an event of finish_reason "error"; the others go on. What is
           raised is a failure of the whole engine
    abort  frees the request at once; a last event with finish_reason "abort" follows
           on the next step; unknown ids are ignored
    score  log-probability of each token given those before it (None for the first),
           with `top` alternatives per position. Takes many steps; `cancelled` is asked
           between them, and EngineError raised once it says so; LogitsError for logits
           that are not finite
    score_after  the same of several continuations of one context, which is computed
           once; the context's own tokens are not scored
    """

    @property
    def name(self) -> str: ...

    @property
    def context_length(self) -> int: ...

    @property
    def resident_bytes(self) -> int: ...

    @property
    def kv_budget(self) -> int: ...

    @kv_budget.setter
    def kv_budget(self, value: int) -> None: ...

    def add(self, request: Request) -> None: ...

    def step(self, allowance: int | None = None) -> list[TokenEvent]: ...

    def abort(self, request_id: str) -> None: ...

    def has_work(self) -> bool: ...

    def score(
        self,
        tokens: tuple[int, ...],
        top: int = 0,
        cancelled: Callable[[], bool] | None = None,
    ) -> list[TokenLogprob | None]: ...

    def score_after(
        self,
        context: tuple[int, ...],
        continuations: Sequence[tuple[int, ...]],
        top: int = 0,
        cancelled: Callable[[], bool] | None = None,
    ) -> list[list[TokenLogprob]]: ...

    def close(self) -> None: ...
