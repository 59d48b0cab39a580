"""From token events to the reply objects of the two routes.

A reply is fed every event; it returns the chunks to stream and keeps what the whole
reply needs, so that both ways say the same.
"""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from typing import Any

from subllm import __version__
from subllm.errors import EngineError
from subllm.runtime.request import TokenEvent, TokenLogprob
from subllm.server.convert import Plan
from subllm.server.logprobs import LegacyLogprobs, chat_logprobs, merge_legacy

FINGERPRINT = f"subllm-{__version__}"


class Reply(ABC):
    """One HTTP reply with `plan.choices` choices."""

    prefix: str
    kind: str
    chunk_kind: str

    def __init__(self, plan: Plan, *, include_usage: bool = False) -> None:
        self.plan = plan
        self._id = f"{self.prefix}-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._include_usage = include_usage
        self._texts: list[list[str]] = [[] for _ in range(plan.choices)]
        self._finish: list[str] = ["length"] * plan.choices
        self._completion_tokens = 0
        self._cached_tokens = 0
        self._accepted = self._rejected = 0  # of the tokens that were drafted

    def opening(self) -> list[dict[str, Any]]:
        """Chunks that come before the first token."""
        return [chunk for index in range(self.plan.choices) for chunk in self._open(index)]

    def feed(self, index: int, event: TokenEvent) -> list[dict[str, Any]]:
        """Take one event of choice `index`; the chunks that it makes. Raises EngineError
        when the engine gave the request up, or says that it failed."""
        if event.error is not None:
            raise event.error
        if event.finish_reason == "abort":
            raise EngineError("the request was aborted by the engine; send it again")
        self._texts[index].append(event.text)
        if event.finish_reason is not None:
            self._finish[index] = event.finish_reason
            self._completion_tokens += event.completion_tokens
            self._accepted += event.accepted_prediction_tokens
            self._rejected += event.rejected_prediction_tokens
            if index % self.plan.n == 0:
                self._cached_tokens += event.cached_tokens
        return self._chunks(index, event)

    def closing(self) -> list[dict[str, Any]]:
        """Chunks after the last token: usage, when asked for."""
        ends = (
            []
            if self.plan.generations
            else [self._chunk(self._end(index)) for index in range(self.plan.choices)]
        )
        usage = [{**self._head(self.chunk_kind), "choices": [], "usage": self._usage()}]
        return ends + (usage if self._include_usage else [])

    def whole(self) -> dict[str, Any]:
        choices = [
            self._choice(index, "".join(self._texts[index])) for index in range(self.plan.choices)
        ]
        return {**self._head(self.kind), "choices": choices, "usage": self._usage()}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self.plan.model.ref.name,
            "system_fingerprint": FINGERPRINT,
        }

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        chunk = {**self._head(self.chunk_kind), "choices": [choice]}
        if self._include_usage:
            chunk["usage"] = None
        return chunk

    def _usage(self) -> dict[str, Any]:
        prompt = sum(len(ids) for ids in self.plan.prompts)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self._completion_tokens,
            "total_tokens": prompt + self._completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self._cached_tokens},
            "completion_tokens_details": {
                "accepted_prediction_tokens": self._accepted,
                "rejected_prediction_tokens": self._rejected,
            },
        }

    @abstractmethod
    def _open(self, index: int) -> list[dict[str, Any]]: ...

    @abstractmethod
    def _chunks(self, index: int, event: TokenEvent) -> list[dict[str, Any]]: ...

    @abstractmethod
    def _end(self, index: int) -> dict[str, Any]: ...

    @abstractmethod
    def _choice(self, index: int, text: str) -> dict[str, Any]: ...


class CompletionReply(Reply):
    """/v1/completions. `scored` takes the prompt's log-probabilities for echo."""

    prefix = "cmpl"
    kind = chunk_kind = "text_completion"

    def __init__(self, plan: Plan, *, include_usage: bool = False) -> None:
        super().__init__(plan, include_usage=include_usage)
        self._lists = [
            LegacyLogprobs(plan.text.tokenizer, len(self._echo(index)))
            for index in range(plan.choices)
        ]
        self._logprobs: list[list[dict[str, Any]]] = [[] for _ in range(plan.choices)]

    def scored(self, prompt: int, entries: tuple[TokenLogprob | None, ...]) -> None:
        for index in range(prompt * self.plan.n, (prompt + 1) * self.plan.n):
            lists = LegacyLogprobs(self.plan.text.tokenizer, special_is_text=True)
            self._logprobs[index].append(lists.build(self.plan.prompts[prompt], entries))

    def _echo(self, index: int) -> str:
        return self.plan.echoes[index // self.plan.n]

    def _open(self, index: int) -> list[dict[str, Any]]:
        echo = self._echo(index)
        if not echo:
            return []
        return [self._chunk(_text_choice(index, echo, self._merged(index), None))]

    def _chunks(self, index: int, event: TokenEvent) -> list[dict[str, Any]]:
        logprobs = None
        if self.plan.logprobs is not None and event.logprobs:
            logprobs = self._lists[index].build(
                [entry.token for entry in event.logprobs], event.logprobs
            )
            self._logprobs[index].append(logprobs)
        if not (event.text or logprobs or event.finish_reason):
            return []
        return [self._chunk(_text_choice(index, event.text, logprobs, event.finish_reason))]

    def _end(self, index: int) -> dict[str, Any]:
        return _text_choice(index, "", None, "length")

    def _choice(self, index: int, text: str) -> dict[str, Any]:
        text = self._echo(index) + text
        return _text_choice(index, text, self._merged(index), self._finish[index])

    def _merged(self, index: int) -> dict[str, Any] | None:
        return None if self.plan.logprobs is None else merge_legacy(self._logprobs[index])


class ChatReply(Reply):
    """/v1/chat/completions."""

    prefix = "chatcmpl"
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def __init__(self, plan: Plan, *, include_usage: bool = False) -> None:
        super().__init__(plan, include_usage=include_usage)
        self._logprobs: list[list[dict[str, Any]]] = [[] for _ in range(plan.choices)]

    def _open(self, index: int) -> list[dict[str, Any]]:
        return [self._delta(index, {"role": "assistant", "content": ""})]

    def _chunks(self, index: int, event: TokenEvent) -> list[dict[str, Any]]:
        entries = chat_logprobs(self.plan.text.tokenizer, event.logprobs)
        self._logprobs[index] += entries
        chunks = []
        if event.text or (entries and self.plan.logprobs is not None):
            chunks.append(self._delta(index, {"content": event.text}, entries))
        if event.finish_reason is not None:
            chunks.append(self._delta(index, {}, finish=event.finish_reason))
        return chunks

    def _end(self, index: int) -> dict[str, Any]:
        return {"index": index, "delta": {}, "logprobs": None, "finish_reason": "length"}

    def _choice(self, index: int, text: str) -> dict[str, Any]:
        return {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": self._wrapped(self._logprobs[index]),
            "finish_reason": self._finish[index],
        }

    def _delta(
        self,
        index: int,
        delta: dict[str, Any],
        entries: list[dict[str, Any]] | None = None,
        finish: str | None = None,
    ) -> dict[str, Any]:
        logprobs = self._wrapped(entries) if entries else None
        return self._chunk(
            {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        )

    def _wrapped(self, entries: list[dict[str, Any]]) -> dict[str, Any] | None:
        return None if self.plan.logprobs is None else {"content": entries, "refusal": None}


def _text_choice(
    index: int, text: str, logprobs: dict[str, Any] | None, finish: str | None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
