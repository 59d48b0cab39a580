"""One request on its way: its tokens, how far they are computed, its text."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from subllm.errors import EngineError
from subllm.runtime.backend import Draw, TokenArray
from subllm.runtime.output import CompletionText
from subllm.runtime.request import FinishReason, Request, TokenEvent, TokenLogprob


class Sequence:
    """Prompt and completion of one request.

    `computed` tokens have their keys and values in the slab `kv`; the rest, `pending`,
    must still run. A decoding sequence has exactly one pending token, the last one.
    """

    def __init__(self, request: Request, text: CompletionText, stop_ids: Mapping[int, str]) -> None:
        self.request = request
        self.prompt_length = len(request.prompt)
        self.kv: int | None = None
        self.computed = 0
        self.turn = 0  # of the scheduler, when it ran last
        self.cached = 0  # prompt tokens taken from an earlier request, at first admission
        self._stop_ids = stop_ids
        self._text = text
        self._length = self.prompt_length
        self._buffer = np.empty(self.prompt_length + request.params.max_tokens, dtype=np.int32)
        self._buffer[: self.prompt_length] = request.prompt
        seed = request.params.seed
        self._random = random.Random(seed)  # noqa: S311 (sampling, not secrets)

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

    def draw(self) -> Draw:
        """What a backend needs to choose the next token; takes one random number."""
        return Draw(self.request.params, self.tokens, self.prompt_length, self._random.random())

    def accept(self, token: int, logprob: TokenLogprob | None) -> TokenEvent:
        """Appends a chosen token and says what it means for the client."""
        if token in self._stop_ids:
            text, stop = self._text.finish()
            return self._event(text, finish="stop", stop=stop or self._stop_ids[token])
        self._buffer[self._length] = token
        self._length += 1
        logprobs = () if logprob is None else (logprob,)
        text, stop = self._text.push(token)
        finish: FinishReason | None = None
        if stop is None and self.completion_length == self.request.params.max_tokens:
            finish = "length"
            rest, stop = self._text.finish()
            text += rest
        if stop is not None:
            finish = "stop"
        return self._event(text, (token,), logprobs, finish, stop)

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
            matched_stop=stop,
            prompt_tokens=self.prompt_length,
            cached_tokens=self.cached,
            completion_tokens=self.completion_length,
        )
