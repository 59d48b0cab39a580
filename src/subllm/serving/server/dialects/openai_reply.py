"""The replies of OpenAI's completions and chat. No fastapi here: the command line answers
with them too, and starts at once."""

from __future__ import annotations

import uuid
from abc import abstractmethod
from typing import Any

from subllm import __version__
from subllm.engine.request import TokenEvent, TokenLogprob
from subllm.serving.server.calls import Call, CallPiece
from subllm.serving.server.convert import Plan
from subllm.serving.server.logprobs import LegacyLogprobs, chat_logprobs, merge_legacy
from subllm.serving.server.reply import Chunk, Reply
from subllm.serving.server.timings import llamacpp_timings

FINGERPRINT = f"subllm-{__version__}"


class OpenAiReply(Reply):
    prefix: str
    kind: str
    chunk_kind: str

    def __init__(self, plan: Plan, *, include_usage: bool = False) -> None:
        super().__init__(plan)
        self._id = f"{self.prefix}-{uuid.uuid4().hex}"
        self._include_usage = include_usage

    def opening(self) -> list[Chunk]:
        return [chunk for index in range(self.plan.choices) for chunk in self._open(index)]

    def closing(self) -> list[Chunk]:
        """The ends of choices that ask for no token; usage, when asked for."""
        ends = (
            []
            if self.plan.generations
            else [self._chunk(self._end(index)) for index in range(self.plan.choices)]
        )
        usage = [{**self._head(self.chunk_kind), "choices": [], **self._counts()}]
        return ends + (usage if self._include_usage else [])

    def whole(self) -> dict[str, Any]:
        choices = [self._choice(index, self.text(index)) for index in range(self.plan.choices)]
        return {**self._head(self.kind), "choices": choices, **self._counts()}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": int(self.created),
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
        }

    def _chunk(self, choice: dict[str, Any]) -> Chunk:
        chunk = {**self._head(self.chunk_kind), "choices": [choice]}
        if self._include_usage:
            chunk["usage"] = None
        return chunk

    def _counts(self) -> dict[str, Any]:
        usage = self.usage
        return {
            "usage": {
                "prompt_tokens": usage.prompt,
                "completion_tokens": usage.completion,
                "total_tokens": usage.prompt + usage.completion,
                "prompt_tokens_details": {"cached_tokens": usage.cached},
                "completion_tokens_details": {
                    "accepted_prediction_tokens": usage.accepted,
                    "rejected_prediction_tokens": usage.rejected,
                },
            },
            "timings": llamacpp_timings(usage, self.timings),
        }

    @abstractmethod
    def _open(self, index: int) -> list[Chunk]: ...

    @abstractmethod
    def _end(self, index: int) -> dict[str, Any]: ...

    @abstractmethod
    def _choice(self, index: int, text: str) -> dict[str, Any]: ...


class CompletionReply(OpenAiReply):
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

    def _open(self, index: int) -> list[Chunk]:
        echo = self._echo(index)
        if not echo:
            return []
        return [self._chunk(_text_choice(index, echo, self._merged(index), None))]

    def chunks(self, index: int, event: TokenEvent) -> list[Chunk]:
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
        return _text_choice(index, text, self._merged(index), self.finish[index])

    def _merged(self, index: int) -> dict[str, Any] | None:
        return None if self.plan.logprobs is None else merge_legacy(self._logprobs[index])


class ChatReply(OpenAiReply):
    """/v1/chat/completions."""

    prefix = "chatcmpl"
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def __init__(self, plan: Plan, *, include_usage: bool = False) -> None:
        super().__init__(plan, include_usage=include_usage)
        self._logprobs: list[list[dict[str, Any]]] = [[] for _ in range(plan.choices)]

    def _open(self, index: int) -> list[dict[str, Any]]:
        return [self._delta(index, {"role": "assistant", "content": ""})]

    def chunks(self, index: int, event: TokenEvent) -> list[dict[str, Any]]:
        entries = chat_logprobs(self.plan.text.tokenizer, event.logprobs)
        self._logprobs[index] += entries
        chunks = []
        if event.text or (entries and self.plan.logprobs is not None):
            chunks.append(self._delta(index, {"content": event.text}, entries))
        if event.finish_reason is not None:
            chunks.append(self._delta(index, {}, finish=self._finish(index)))
        return chunks

    def call_chunks(self, index: int, piece: CallPiece) -> list[dict[str, Any]]:
        """The end of a call is not told."""
        if piece.begins:
            call = {"index": piece.number, **_call(piece.call, "")}
        elif piece.arguments:
            call = {"index": piece.number, "function": {"arguments": piece.arguments}}
        else:
            return []
        return [self._delta(index, {"tool_calls": [call]})]

    def _end(self, index: int) -> dict[str, Any]:
        return {"index": index, "delta": {}, "logprobs": None, "finish_reason": "length"}

    def _finish(self, index: int) -> str:
        finish = self.finish[index]
        return "tool_calls" if finish == "stop" and self.calls(index) else finish

    def _choice(self, index: int, text: str) -> dict[str, Any]:
        calls = [_call(call, call.arguments) for call in self.calls(index)]
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if calls:
            message = {**message, "content": text or None, "tool_calls": calls}
        return {
            "index": index,
            "message": message,
            "logprobs": self._wrapped(self._logprobs[index]),
            "finish_reason": self._finish(index),
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


def _call(call: Call, arguments: str) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _text_choice(
    index: int, text: str, logprobs: dict[str, Any] | None, finish: str | None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
