"""One request on its way: its tokens, how far they are computed, its text."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from subllm.engine.backend import Choice, Draw, TokenArray
from subllm.engine.begun import Begun
from subllm.engine.constraint import Constraint
from subllm.engine.output import CompletionText
from subllm.engine.request import FinishReason, Request, TokenEvent, TokenLogprob
from subllm.errors import EngineError, LogitsError


class Sequence:
    """Prompt and completion of one request.

    `computed` tokens have their keys and values in the slab `kv`; the rest, `pending`,
    must still run. A decoding sequence has exactly one pending token, the last one; behind
    it, `guesses` may run in the same step. They are no tokens of the sequence: `take` says which
    of them become some.
    """

    def __init__(
        self,
        request: Request,
        text: CompletionText,
        stop_ids: Mapping[int, str],
        begun: Begun | None = None,
        room: int = 0,
    ) -> None:
        """begun: of the request; room: for tokens of it, beside `max_tokens`."""
        self.request = request
        self._begun = begun
        self._constraint: Constraint | None = begun or request.constraint
        self.prompt_length = len(request.prompt)
        self.kv: int | None = None
        self.computed = 0
        self.turn = 0  # of the scheduler, when it ran last
        self.number = 0  # of the scheduler, in the order of arrival
        self.overtaken = 0  # by so many that came later, while it waited
        self.cached = 0  # prompt tokens taken from an earlier request, at first admission
        self.guesses = 0  # written behind the tokens
        self.accepted = 0  # guesses that were emitted, so far
        self.rejected = 0  # and those that were not
        self._stop_ids = stop_ids
        self._text = text
        self._length = self.prompt_length
        self._told = 0  # tokens that were new
        length = self.prompt_length + request.params.max_tokens + room
        self._buffer = np.empty(length, dtype=np.int32)
        self._buffer[: self.prompt_length] = request.prompt
        seed = request.params.seed
        self._random = random.Random(seed)  # noqa: S311 (sampling, not secrets)
        self._uniforms: deque[float] = deque()  # of the positions that follow, where drawn

    @property
    def tokens(self) -> TokenArray:
        """All tokens so far, prompt first."""
        return self._buffer[: self._length]

    @property
    def pending(self) -> int:
        return self._length - self.computed

    @property
    def completion_length(self) -> int:
        return self._length - self.prompt_length

    @property
    def new_length(self) -> int:
        """Without the tokens that say again what is known."""
        return self.completion_length - (self._begun.known if self._begun else 0)

    @property
    def room(self) -> int:
        """Guesses that may be of use: with all of them, one more token is drawn at most."""
        return max(0, len(self._buffer) - self._length - 1)

    @property
    def free(self) -> bool:
        """Whether anything may come next."""
        return self._constraint is None or self._constraint.done

    def guess(self, tokens: Iterable[int]) -> None:
        """Puts guesses, at most `room`, in place of those that are there."""
        ids = list(tokens)
        self._buffer[self._length : self._length + len(ids)] = ids
        self.guesses = len(ids)

    def pieces(self, count: int) -> TokenArray:
        """The next `count` tokens to run, guesses included."""
        return self._buffer[self.computed : self.computed + count]

    def draws(self) -> tuple[Draw, ...]:
        """What a backend needs to choose the tokens after the last one and after each guess.

        Every position of a completion has one random number, whichever step draws it.
        """
        params, start = self.request.params, self._length
        constraint = self._constraint
        if constraint is not None and not constraint.done:
            assert not self.guesses  # what may follow one is not known
            allowed = None if constraint.error else constraint.allowed()
            tokens = self._buffer[:start]
            return (Draw(params, tokens, self.prompt_length, self.uniform(0), allowed=allowed),)
        return tuple(
            Draw(params, self._buffer[: start + i], self.prompt_length, self.uniform(i))
            for i in range(self.guesses + 1)
        )

    def uniform(self, ahead: int) -> float:
        """The random number of the position so many after the next one."""
        while len(self._uniforms) <= ahead:
            self._uniforms.append(self._random.random())
        return self._uniforms[ahead]

    def take(self, drawn: Iterable[Choice | LogitsError]) -> list[TokenEvent]:
        """What was drawn with `draws`, up to the first token that no guess foresaw or that
        ends the sequence. All pending tokens have been computed, and the guesses."""
        start, count = self._length, self.guesses
        guessed = self._buffer[start : start + count].tolist()
        self.guesses = 0
        events: list[TokenEvent] = []
        hits = 0
        for found in drawn:
            self._uniforms.popleft()
            choice = self._follow(found)
            if isinstance(choice, EngineError):
                events.append(self.fail(choice))
                break
            hit = hits < count and choice.token == guessed[hits]
            hit = hit and choice.token not in self._stop_ids  # which is not emitted
            hits += hit
            self.accepted += hit
            events.append(self.accept(choice.token, choice.logprob))
            if not hit or events[-1].finish_reason is not None:
                break
        self.computed = start + hits
        self.rejected += count - hits
        events[-1] = replace(events[-1], rejected_prediction_tokens=self.rejected)
        return events

    def _follow(self, choice: Choice | EngineError) -> Choice | EngineError:
        """Tells the constraint what was chosen; the choice, or why it does not count."""
        constraint = self._constraint
        if constraint is None or constraint.done:
            return choice
        if isinstance(choice, Choice) and constraint.error is None:
            constraint.take(choice.token)
        if constraint.error is None:
            return choice
        return EngineError(f"the form that was asked for cannot be kept: {constraint.error}")

    def accept(self, token: int, logprob: TokenLogprob | None) -> TokenEvent:
        """Appends a chosen token and says what it means for the client."""
        if token in self._stop_ids:
            text, stop = self._text.finish()
            return self._event(text, finish="stop", stop=stop or self._stop_ids[token])
        self._buffer[self._length] = token
        self._length += 1
        new, self._told = self.new_length > self._told, self.new_length
        logprobs = () if logprob is None or not new else (logprob,)
        text, stop = self._text.push(token)
        finish: FinishReason | None = None
        full = self.new_length == self.request.params.max_tokens
        if stop is None and (full or self._length == len(self._buffer)):
            finish = "length"
            rest, stop = self._text.finish()
            text += rest
        if stop is not None:
            finish = "stop"
        return self._event(text, (token,) if new else (), logprobs, finish, stop)

    def end(self, reason: FinishReason) -> TokenEvent:
        """The last event of a request that ends without another token."""
        return self._event(self._text.finish()[0], finish=reason)

    def fail(self, error: EngineError) -> TokenEvent:
        """The last event of a request that cannot go on; text held back is let go."""
        return replace(self.end("error"), error=error)

    def _event(
        self,
        text: str,
        tokens: tuple[int, ...] = (),
        logprobs: tuple[TokenLogprob, ...] = (),
        finish: FinishReason | None = None,
        stop: str | None = None,
    ) -> TokenEvent:
        return TokenEvent(
            request_id=self.request.id,
            text=text,
            tokens=tokens,
            logprobs=logprobs,
            finish_reason=finish,
            matched_stop=stop or None,
            prompt_tokens=self.prompt_length + len(self.request.begun),
            cached_tokens=self.cached,
            completion_tokens=self.new_length,
            accepted_prediction_tokens=self.accepted,
            rejected_prediction_tokens=self.rejected,
        )
