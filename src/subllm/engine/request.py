"""What goes into an engine and what comes out. No HTTP, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol

from subllm.engine.constraint import Constraint
from subllm.engine.params import SamplingParams, TokenLogprob
from subllm.errors import EngineError
from subllm.models.text.hole_end import Hole

if TYPE_CHECKING:
    from subllm.engine.draft import Draft
    from subllm.engine.kv_room import KvRoom

__all__ = [
    "Engine",
    "FinishReason",
    "Request",
    "SamplingParams",
    "SourceCounts",
    "Speculation",
    "SpeculationStats",
    "TokenEvent",
    "TokenLogprob",
]

FinishReason = Literal["stop", "length", "abort", "error"]

Speculation = Literal["auto", "off", "ngram", "draft"]
"""Who may propose tokens of a completion: n-grams and the engine's draft model, nobody, one of
the two. None of it changes what comes out, only how fast."""


@dataclass(frozen=True)
class Request:
    """One completion. `prompt` holds token ids, special tokens included.

    prediction   tokens that the client expects the completion to be made of, whole or in
                 pieces (a file that is to be edited): what is right of it comes faster
    session      completions of the same session are looked up for drafts, and this one is
                 remembered for later ones (the last few, for as long as the engine lives);
                 None: neither
    speculation  see `Speculation`
    score        instead of a completion, the log-probability of every token of the prompt but
                 the first, with so many alternatives; `params` mean nothing
    interactive  somebody waits for it while typing: where requests queue up, the newest of
                 these goes first, since it has made the others stale
    constraint   what the completion must be; it belongs to this request alone. Nothing is
                 drafted until it is done
    begun        tokens of a text that the completion begins with, in whatever tokens the model
                 would have written it: part of the prompt, and counted with it. Not together
                 with a constraint
    hole         what the completion fills: it ends where it says again what follows, which is
                 not part of its text (finish_reason "stop", as where the model ends it)
    """

    id: str
    prompt: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    prediction: tuple[int, ...] = ()
    session: str | None = None
    speculation: Speculation = "off"
    score: int | None = None
    interactive: bool = False
    constraint: Constraint | None = None
    begun: tuple[int, ...] = ()
    hole: Hole | None = None


@dataclass(frozen=True)
class TokenEvent:
    """A token of one request, or its end. A step may give several, in the order of the tokens.

    text      a valid UTF-8 piece, possibly empty (bytes of an unfinished character
              and a possible start of a stop string are held back); never holds the
              stop string
    tokens    ids accepted since the last event, for counting and logprobs
    logprobs  of these tokens where they were asked for; of the next tokens of the prompt
              where the request is to be scored (finish_reason "length" with the last)
    finish_reason  None until the last event of the request
    matched_stop   the stop string or token text that ended it
    error          why it ended, with finish_reason "error"
    accepted_prediction_tokens  tokens so far that were drafted before they were drawn
    rejected_prediction_tokens  so far: drafted and computed, but not emitted
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
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


@dataclass(frozen=True)
class SourceCounts:
    """What one source of drafts gave: rounds with tokens of it, these, and those of them that
    were emitted."""

    rounds: int = 0
    drafted: int = 0
    accepted: int = 0


@dataclass(frozen=True)
class SpeculationStats:
    """Since the engine was made. `draft`: name of the attached draft model. `sources` by name
    ("ngram", "draft"), those that proposed anything."""

    draft: str | None = None
    sources: Mapping[str, SourceCounts] = field(default_factory=lambda: MappingProxyType({}))


class Engine(Protocol):
    """Many requests on one loaded model. One thread calls it; nothing here but `score` and
    `score_after` blocks longer than one step.

    kv_budget  KV memory, in bytes, of all requests together; room for one context is
           always granted. May be changed between steps: kept prefixes give way at once,
           running requests as they grow
    on_card    whether weights, keys and values lie in the memory of a GPU, which is a bound of
           its own: they take nothing of what the machine's models share
    share_kv   takes KV memory from a room that it shares with other engines, in place of its
           own budget. The room must be as large as one context. Nothing where `on_card`

    add    raises ContextLengthError, EngineBusyError; tokens outside the vocabulary
           raise EngineError
    step   one scheduling step: prefill a chunk or decode every running request, `allowance`
           tokens in all at most (None: as many as the engine is made for). `seconds`: about
           how long it may take, by what was measured so far; prompts and scores are cut so
           that it does, which changes no result (None: pieces as the engine is made for).
           Returns what happened, empty when there is no work. A request that fails ends with
           an event of finish_reason "error"; the others go on. What is raised is a failure
           of the whole engine
    abort  frees the request at once; a last event with `reason` follows on the next step;
           unknown ids are ignored
    score  log-probability of each token given those before it (None for the first),
           with `top` alternatives per position. Takes many steps, in which requests do not
           go on: see `Request.score`. Raises LogitsError for logits that are not finite
    score_after  the same of several continuations of one context, which is computed
           once; the context's own tokens are not scored
    speculates  whether drafts are used at all: not on a backend whose results depend on how
           many tokens are in a step
    set_draft  attaches a draft model in place of the one before, which is closed; None: none.
           Between steps, also while requests run. Raises DraftError, and keeps what it has,
           for a model whose token ids mean something else; that one is the caller's to close
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

    @property
    def on_card(self) -> bool: ...

    def share_kv(self, room: KvRoom) -> None: ...

    @property
    def speculates(self) -> bool: ...

    @property
    def speculation(self) -> SpeculationStats: ...

    def set_draft(self, draft: Draft | None) -> None: ...

    def add(self, request: Request) -> None: ...

    def step(
        self, allowance: int | None = None, seconds: float | None = None
    ) -> list[TokenEvent]: ...

    def abort(self, request_id: str, reason: FinishReason = "abort") -> None: ...

    def has_work(self) -> bool: ...

    def score(self, tokens: tuple[int, ...], top: int = 0) -> list[TokenLogprob | None]: ...

    def score_after(
        self,
        context: tuple[int, ...],
        continuations: Sequence[tuple[int, ...]],
        top: int = 0,
    ) -> list[list[TokenLogprob]]: ...

    def close(self) -> None: ...
