"""From token events to a reply: what every dialect counts alike.

A reply is fed every event; it returns the chunks to stream and keeps what the whole
reply needs, so that both ways say the same.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

from subllm.engine.request import TokenEvent, TokenLogprob
from subllm.errors import EngineError
from subllm.serving.server.calls import Call, CallParser, CallPiece
from subllm.serving.server.convert import Plan

Chunk = dict[str, Any]


@dataclass
class Usage:
    """Tokens of one reply. `cached`, of the prompts, did not have to be computed; `accepted`
    and `rejected` were drafted."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    accepted: int = 0
    rejected: int = 0


@dataclass(frozen=True)
class Timings:
    """Seconds: from the request's arrival to its first token (with waiting and loading), and
    from there to the last."""

    prompt: float
    completion: float


class Reply(ABC):
    """One HTTP reply with `plan.choices` choices."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.created = time.time()
        self.usage = Usage(prompt=sum(len(ids) for ids in plan.prompts))
        self.texts: list[list[str]] = [[] for _ in range(plan.choices)]
        self.finish: list[str] = ["length"] * plan.choices
        self.matched_stop: list[str | None] = [None] * plan.choices
        self._parsers: list[CallParser] = []
        if plan.tools is not None:
            names = frozenset(tool.name for tool in plan.tools.callable)
            self._parsers = [CallParser(names) for _ in range(plan.choices)]
        self._began = self._latest = time.perf_counter()
        self._first: float | None = None  # when the first token came

    @property
    def model(self) -> str:
        return self.plan.model.ref.name

    @property
    def timings(self) -> Timings:
        first = self._latest if self._first is None else self._first
        return Timings(first - self._began, self._latest - first)

    def text(self, index: int) -> str:
        return "".join(self.texts[index])

    def calls(self, index: int) -> list[Call]:
        return self._parsers[index].calls if self._parsers else []

    def feed(self, index: int, event: TokenEvent) -> list[Chunk]:
        """Take one event of choice `index`; the chunks that it makes. Raises EngineError
        when the engine gave the request up, or says that it failed."""
        if event.error is not None:
            raise event.error
        if event.finish_reason == "abort":
            raise EngineError("the request was aborted by the engine; send it again")
        self._latest = time.perf_counter()
        if self._first is None:
            self._first = self._latest
        chunks: list[Chunk] = []
        if self._parsers:
            event, chunks = self._parse(index, event)
        self.texts[index].append(event.text)
        if event.finish_reason is not None:
            self.finish[index] = event.finish_reason
            self.matched_stop[index] = event.matched_stop
            self.usage.completion += event.completion_tokens
            self.usage.accepted += event.accepted_prediction_tokens
            self.usage.rejected += event.rejected_prediction_tokens
            if index % self.plan.n == 0:
                self.usage.cached += event.cached_tokens
        return [*chunks, *self.chunks(index, event)]

    def _parse(self, index: int, event: TokenEvent) -> tuple[TokenEvent, list[Chunk]]:
        """The event without the text of calls, and chunks that come before its own."""
        parser = self._parsers[index]
        text, pieces = parser.push(event.text)
        if event.finish_reason is not None:
            rest, more = parser.finish()
            text, pieces = text + rest, pieces + more
        event = replace(event, text=text)
        if not pieces:
            return event, []
        chunks = []
        if text:  # a reply's text comes before its calls
            self.texts[index].append(text)
            chunks = self.chunks(index, replace(event, finish_reason=None))
            event = replace(event, text="", tokens=(), logprobs=())
        return event, [*chunks, *(c for piece in pieces for c in self.call_chunks(index, piece))]

    def scored(self, prompt: int, entries: tuple[TokenLogprob | None, ...]) -> None:
        """Take the log-probabilities of a prompt's tokens. Raises where none are asked for."""
        raise NotImplementedError

    def opening(self) -> list[Chunk]:
        """Chunks that come before the first token."""
        return []

    def call_chunks(self, index: int, piece: CallPiece) -> list[Chunk]:
        """What a piece of a call adds to a stream. Raises where no tools are asked for."""
        raise NotImplementedError

    @abstractmethod
    def chunks(self, index: int, event: TokenEvent) -> list[Chunk]:
        """What an event adds to a stream."""

    @abstractmethod
    def closing(self) -> list[Chunk]:
        """Chunks after the last token."""

    @abstractmethod
    def whole(self) -> Any:
        """The reply as one JSON value, when all events have been fed."""
