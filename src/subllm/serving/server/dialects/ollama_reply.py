"""The replies of Ollama's /api/generate and /api/chat."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from subllm.engine.request import TokenEvent
from subllm.serving.server.calls import Call, CallPiece
from subllm.serving.server.convert import Plan
from subllm.serving.server.reply import Chunk, Reply
from subllm.serving.server.timings import llamacpp_timings


class OllamaReply(Reply):
    """`name` is the model as it was asked for; `chat` puts the text into a message, `loads`
    throws it away."""

    def __init__(self, plan: Plan, *, name: str | None, chat: bool, loads: bool) -> None:
        super().__init__(plan)
        self._name = name or self.model
        self._chat = chat
        self._loads = loads
        self._began_at = time.perf_counter()

    def chunks(self, index: int, event: TokenEvent) -> list[Chunk]:
        if not event.text or self._loads:
            return []
        return [{**self._head(event.text), "done": False}]

    def call_chunks(self, index: int, piece: CallPiece) -> list[Chunk]:
        """A call comes whole, when it has ended."""
        return [{**self._head("", [piece.call]), "done": False}] if piece.ends else []

    def closing(self) -> list[Chunk]:
        return [{**self._head(""), **self._end()}]

    def whole(self) -> dict[str, Any]:
        calls = [call for call in self.calls(0) if call.done]
        return {**self._head("" if self._loads else self.text(0), calls), **self._end()}

    def _head(self, text: str, calls: Sequence[Call] = ()) -> dict[str, Any]:
        return _head(self._name, text, chat=self._chat, calls=calls)

    def _end(self) -> dict[str, Any]:
        if self._loads:
            return {"done": True, "done_reason": "load"}
        timings = self.timings
        return {
            "done": True,
            "done_reason": self.finish[0],
            "total_duration": _nanoseconds(time.perf_counter() - self._began_at),
            "load_duration": 0,  # is in that of the prompt
            "prompt_eval_count": self.usage.prompt,
            "prompt_eval_duration": _nanoseconds(timings.prompt),
            "eval_count": self.usage.completion,
            "eval_duration": _nanoseconds(timings.completion),
            "cached_tokens": self.usage.cached,
            "timings": llamacpp_timings(self.usage, timings),
        }


def unloaded(name: str, *, chat: bool) -> dict[str, Any]:
    """The answer to a request that only wants the model to go."""
    return {**_head(name, "", chat=chat), "done": True, "done_reason": "unload"}


def _head(name: str, text: str, *, chat: bool, calls: Sequence[Call] = ()) -> dict[str, Any]:
    content: dict[str, Any] = {"response": text}
    if chat:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if calls:
            message["tool_calls"] = [_call(call) for call in calls]
        content = {"message": message}
    return {"model": name, "created_at": stamp(datetime.now(UTC)), **content}


def stamp(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def _call(call: Call) -> dict[str, Any]:
    return {"function": {"name": call.name, "arguments": json.loads(call.arguments)}}


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
