"""The reply of OpenAI's responses: items, which are messages and calls of tools, in the order in
which they come."""

from __future__ import annotations

import uuid
from typing import Any

from subllm.engine.request import TokenEvent
from subllm.serving.server.calls import Call, CallPiece
from subllm.serving.server.convert import Plan
from subllm.serving.server.dialects.responses_wire import NamedChoice, ResponsesBody
from subllm.serving.server.reply import Chunk, Reply
from subllm.serving.server.timings import llamacpp_timings

Item = dict[str, Any]


class ResponsesReply(Reply):
    def __init__(self, plan: Plan, body: ResponsesBody) -> None:
        super().__init__(plan)
        self._body = body
        self._id = _new_id("resp")
        self._sequence = 0
        self._items: list[Item] = []  # as far as they have come
        self._pieces: list[str] = []  # of the last one, as long as it is open
        self._open = False

    def opening(self) -> list[Chunk]:
        return [
            self._event("response.created", response=self._response("in_progress")),
            self._event("response.in_progress", response=self._response("in_progress")),
            # With tools it may be a call that comes first.
            *([] if self.plan.tools is not None else self._begin_message()),
        ]

    def chunks(self, index: int, event: TokenEvent) -> list[Chunk]:
        if not event.text:
            return []
        begun = [] if self._in_message else self._begin_message()
        self._pieces.append(event.text)
        told = {**self._part_place(), "delta": event.text, "logprobs": []}
        return [*begun, self._event("response.output_text.delta", **told)]

    def call_chunks(self, index: int, piece: CallPiece) -> list[Chunk]:
        if piece.begins:
            return self._begin(_call(piece.call))
        if piece.arguments:
            self._pieces.append(piece.arguments)
            told = {**self._place(), "delta": piece.arguments}
            return [self._event("response.function_call_arguments.delta", **told)]
        return self._end("completed")

    def closing(self) -> list[Chunk]:
        begun = [] if self._items else self._begin_message()
        status = self._status()
        ended = self._end(status)
        return [*begun, *ended, self._event(f"response.{status}", response=self.whole())]

    def whole(self) -> dict[str, Any]:
        """Once `closing` was asked for. The arguments of a call that max_output_tokens cut are
        no JSON, and its status is incomplete."""
        status = self._status()
        usage = self.usage
        return {
            **self._response(status),
            "output": self._items,
            "incomplete_details": (
                {"reason": "max_output_tokens"} if status == "incomplete" else None
            ),
            "usage": {
                "input_tokens": usage.prompt,
                "input_tokens_details": {"cached_tokens": usage.cached},
                "output_tokens": usage.completion,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage.prompt + usage.completion,
            },
            "timings": llamacpp_timings(usage, self.timings),
        }

    @property
    def _in_message(self) -> bool:
        return self._open and self._items[-1]["type"] == "message"

    def _begin_message(self) -> list[Chunk]:
        begun = self._begin(_message([]))
        added = self._event("response.content_part.added", **self._part_place(), part=_part(""))
        return [*begun, added]

    def _begin(self, item: Item) -> list[Chunk]:
        ended = self._end("completed")
        self._items.append(item)
        self._pieces, self._open = [], True
        place = {"output_index": len(self._items) - 1}
        return [*ended, self._event("response.output_item.added", **place, item=item)]

    def _end(self, status: str) -> list[Chunk]:
        """Of the item that is open, if one is."""
        if not self._open:
            return []
        self._open = False
        item, text = self._items[-1], "".join(self._pieces)
        if item["type"] == "message":
            part, place = _part(text), self._part_place()
            told = [
                self._event("response.output_text.done", **place, text=text, logprobs=[]),
                self._event("response.content_part.done", **place, part=part),
            ]
            item = {**item, "status": status, "content": [part]}
        else:
            place = {**self._place(), "name": item["name"], "arguments": text}
            told = [self._event("response.function_call_arguments.done", **place)]
            item = {**item, "status": status, "arguments": text}
        self._items[-1] = item
        place = {"output_index": len(self._items) - 1}
        return [*told, self._event("response.output_item.done", **place, item=item)]

    def _status(self) -> str:
        return "incomplete" if self.finish[0] == "length" else "completed"

    def _response(self, status: str) -> dict[str, Any]:
        body, params = self._body, self.plan.generations[0].params
        return {
            "id": self._id,
            "object": "response",
            "created_at": int(self.created),
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "model": self.model,
            "output": [],
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "store": False,
            "temperature": params.temperature,
            "text": {"format": self._format()},
            "tool_choice": self._choice(),
            "tools": [tool.model_dump() for tool in body.tools or ()],
            "top_p": params.top_p,
            "truncation": "disabled",
            "usage": None,
            "metadata": (body.model_extra or {}).get("metadata") or {},
        }

    def _format(self) -> dict[str, Any]:
        told = self._body.text.format if self._body.text else None
        return told.model_dump(by_alias=True, exclude_none=True) if told else {"type": "text"}

    def _choice(self) -> Any:
        choice = self._body.tool_choice
        return choice.model_dump() if isinstance(choice, NamedChoice) else choice or "auto"

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1}

    def _part_place(self) -> dict[str, Any]:
        return {**self._place(), "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> Chunk:
        self._sequence += 1
        return {"type": kind, "sequence_number": self._sequence - 1, **fields}


def _new_id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"


def _message(content: list[dict[str, Any]]) -> Item:
    return {
        "id": _new_id("msg"),
        "type": "message",
        "status": "in_progress",
        "role": "assistant",
        "content": content,
    }


def _call(call: Call) -> Item:
    return {
        "id": _new_id("fc"),
        "type": "function_call",
        "status": "in_progress",
        "call_id": call.id,
        "name": call.name,
        "arguments": "",
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
