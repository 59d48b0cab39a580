"""OpenAI's responses: text, whole or as a stream of named events; nothing is stored, no tools."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from subllm.routing.router import Message
from subllm.runtime.request import TokenEvent
from subllm.server.convert import Plan
from subllm.server.dialects.body import Body
from subllm.server.dialects.openai_error import error_body
from subllm.server.dialects.tools_wire import ANY_OBJECT, Schema
from subllm.server.errors import bad_request
from subllm.server.framing import named_events
from subllm.server.generation import Generation
from subllm.server.refusals import refuse
from subllm.server.reply import Chunk, Reply
from subllm.server.service import Service
from subllm.server.timings import llamacpp_timings
from subllm.server.values import MaxTokens, Temperature, Text, TopP, Wire

_REFUSED: dict[str, tuple[Any, ...]] = {
    "access_programs": (),
    "background": (),
    "background_options": (),
    "context_management": (),
    "conversation": (),
    "image": (),
    "include": (),
    "max_tool_calls": (),
    "moderation": (),
    "previous_response_id": (),
    "prompt": (),
    "prompt_cache_retention": ("in_memory", "in-memory"),
    "reasoning": ({"effort": "none"},),
    "service_tier": ("auto", "default"),
    "store": (),
    "tool_choice": ("none", "auto"),
    "tools": (),
    "top_logprobs": (),
    "truncation": ("disabled",),
}
_REFUSED_TEXT: dict[str, tuple[Any, ...]] = {"verbosity": ("medium",)}


class Part(Wire):
    type: Literal["input_text", "output_text", "text"]
    text: Text


class Item(Wire):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Text | Annotated[list[Part], Field(fail_fast=True)]

    def message(self) -> Message:
        role = "system" if self.role == "developer" else self.role
        if isinstance(self.content, str):
            return Message(role, self.content)
        return Message(role, "\n".join(part.text for part in self.content))


class TextFormat(Wire):
    """`strict` is accepted: replies always follow the schema."""

    type: Literal["text", "json_object", "json_schema"]
    name: Text | None = None
    description: Text | None = None
    schema_: Schema | None = Field(None, alias="schema")

    def form(self) -> Schema | None:
        """Raises ApiError."""
        if self.type == "json_schema" and self.schema_ is None:
            raise bad_request("text: format.schema is missing", "text")
        return {"text": None, "json_object": ANY_OBJECT, "json_schema": self.schema_}[self.type]


class TextOptions(Wire):
    format: TextFormat | None = None


class ResponsesBody(Body):
    """Of no effect, and accepted: metadata, user, safety_identifier, prompt_cache_key and
    _options (prefixes are always kept), parallel_tool_calls, and `include_obfuscation` of
    stream_options."""

    input: Text | Annotated[list[Item], Field(min_length=1, fail_fast=True)]
    instructions: Text | None = None
    max_output_tokens: Annotated[MaxTokens, Field(ge=1)] | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    text: TextOptions | None = None
    stream: bool | None = None

    def generation(self) -> Generation:
        """Raises ApiError."""
        refuse(self.model_extra, _REFUSED)
        told = self.text or TextOptions()
        refuse({f"text.{k}": v for k, v in (told.model_extra or {}).items()}, _TEXT)
        first = (Message("system", self.instructions),) if self.instructions else ()
        if isinstance(self.input, str):
            turns: tuple[Message, ...] = (Message("user", self.input),)
        else:
            turns = tuple(item.message() for item in self.input)
        return Generation(
            **self.chosen(),
            messages=(*first, *turns),
            max_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            form=told.format.form() if told.format else None,
        )


_TEXT = {f"text.{name}": values for name, values in _REFUSED_TEXT.items()}
EVENTS = named_events(error_body)


class ResponsesReply(Reply):
    def __init__(self, plan: Plan, body: ResponsesBody) -> None:
        super().__init__(plan)
        self._body = body
        self._id = f"resp_{uuid.uuid4().hex}"
        self._item = f"msg_{uuid.uuid4().hex}"
        self._sequence = 0

    def opening(self) -> list[Chunk]:
        item = self._message("in_progress", [])
        return [
            self._event("response.created", response=self._response("in_progress")),
            self._event("response.in_progress", response=self._response("in_progress")),
            self._event("response.output_item.added", output_index=0, item=item),
            self._event("response.content_part.added", **self._place(), part=_part("")),
        ]

    def chunks(self, index: int, event: TokenEvent) -> list[Chunk]:
        if not event.text:
            return []
        fields = {**self._place(), "delta": event.text, "logprobs": []}
        return [self._event("response.output_text.delta", **fields)]

    def closing(self) -> list[Chunk]:
        text = self.text(0)
        status = self._status()
        item = self._message(status, [_part(text)])
        place = self._place()
        return [
            self._event("response.output_text.done", **place, text=text, logprobs=[]),
            self._event("response.content_part.done", **place, part=_part(text)),
            self._event("response.output_item.done", output_index=0, item=item),
            self._event(f"response.{status}", response=self.whole()),
        ]

    def whole(self) -> dict[str, Any]:
        status = self._status()
        output = [self._message(status, [_part(self.text(0))])]
        usage = self.usage
        return {
            **self._response(status),
            "output": output,
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
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": params.temperature,
            "text": {"format": self._format()},
            "tool_choice": "none",
            "tools": [],
            "top_p": params.top_p,
            "truncation": "disabled",
            "usage": None,
            "metadata": (body.model_extra or {}).get("metadata") or {},
        }

    def _format(self) -> dict[str, Any]:
        told = self._body.text.format if self._body.text else None
        return told.model_dump(by_alias=True, exclude_none=True) if told else {"type": "text"}

    def _message(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._item,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item, "output_index": 0, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> Chunk:
        self._sequence += 1
        return {"type": kind, "sequence_number": self._sequence - 1, **fields}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def routes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/responses")
    @router.post("/responses")
    async def responses(body: ResponsesBody, request: Request) -> Response:
        reply = ResponsesReply(await service.plan(body.generation, request), body)
        return await service.answer(request, reply, EVENTS if body.stream else None)

    return router
