"""Anthropic's messages: text, whole or as a stream of named events; no tools."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from subllm.routing.router import Message
from subllm.runtime.request import TokenEvent
from subllm.server.convert import Plan
from subllm.server.dialect import Dialect
from subllm.server.dialects.body import Body
from subllm.server.errors import ApiError, bad_request
from subllm.server.framing import named_events
from subllm.server.generation import Generation
from subllm.server.refusals import refuse
from subllm.server.reply import Chunk, Reply
from subllm.server.service import Service
from subllm.server.timings import llamacpp_timings
from subllm.server.values import MaxTokens, Text, Texts, TopK, TopP, Wire

PATHS = (
    "/v1/messages",
    "/messages",
    "/v1/messages/count_tokens",
    "/messages/count_tokens",
)
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_REFUSED: dict[str, tuple[Any, ...]] = {
    "tools": (),
    "tool_choice": ({"type": "none"},),
    "thinking": ({"type": "disabled"},),
    "container": (),
    "mcp_servers": (),
    "context_management": (),
    "output_config": (),
    "output_format": (),
    "speed": ("standard",),
}


def error_body(error: ApiError) -> dict[str, Any]:
    kind = _KINDS.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}}


ANTHROPIC = Dialect(error_body, x_api_key=True)
EVENTS = named_events(error_body, waiting={"type": "ping"})


class Block(Wire):
    """`cache_control` is accepted: prefixes are always kept."""

    type: Literal["text"]
    text: Text


Blocks = Annotated[list[Block], Field(fail_fast=True)]


class Turn(Wire):
    role: Literal["user", "assistant", "system"]
    content: Text | Blocks


class CountBody(Body):
    messages: Annotated[list[Turn], Field(min_length=1, fail_fast=True)]
    system: Text | Blocks | None = None

    def turns(self) -> tuple[Message, ...]:
        """Raises ApiError."""
        refuse(self.model_extra, _REFUSED)
        if self.messages[-1].role == "assistant":
            raise bad_request(
                "the last message is the assistant's; going on with one is not supported",
                "messages",
            )
        system = _joined(self.system) if self.system else ""
        first = (Message("system", system),) if system else ()
        return (*first, *(Message(turn.role, _joined(turn.content)) for turn in self.messages))

    def generation(self) -> Generation:
        """For its prompt alone."""
        return Generation(**self.chosen(), messages=self.turns(), max_tokens=0)


class MessagesBody(CountBody):
    """`metadata` and `service_tier` are accepted and of no effect."""

    max_tokens: Annotated[MaxTokens, Field(ge=1)]
    stop_sequences: Texts | None = None
    temperature: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    stream: bool | None = None

    def generation(self) -> Generation:
        """Raises ApiError."""
        return Generation(
            **self.chosen(),
            messages=self.turns(),
            max_tokens=self.max_tokens,
            stop=tuple(self.stop_sequences or ()),
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
        )


class MessagesReply(Reply):
    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._id = f"msg_{uuid.uuid4().hex}"

    def opening(self) -> list[Chunk]:
        message = {**self._message([]), "stop_reason": None, "stop_sequence": None}
        block = {"type": "text", "text": ""}
        return [
            {"type": "message_start", "message": message},
            {"type": "content_block_start", "index": 0, "content_block": block},
        ]

    def chunks(self, index: int, event: TokenEvent) -> list[Chunk]:
        if not event.text:
            return []
        delta = {"type": "text_delta", "text": event.text}
        return [{"type": "content_block_delta", "index": 0, "delta": delta}]

    def closing(self) -> list[Chunk]:
        end = {"type": "message_delta", "delta": self._stop(), **self._counts()}
        return [{"type": "content_block_stop", "index": 0}, end, {"type": "message_stop"}]

    def whole(self) -> dict[str, Any]:
        content = [{"type": "text", "text": self.text(0)}]
        return {**self._message(content), **self._stop(), **self._counts()}

    def _message(self, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "usage": self._usage(),
        }

    def _stop(self) -> dict[str, Any]:
        stop = self.matched_stop[0]
        if self.finish[0] == "length":
            return {"stop_reason": "max_tokens", "stop_sequence": None}
        if stop in self.plan.generations[0].params.stop:
            return {"stop_reason": "stop_sequence", "stop_sequence": stop}
        return {"stop_reason": "end_turn", "stop_sequence": None}

    def _usage(self) -> dict[str, Any]:
        return {
            "input_tokens": self.usage.prompt - self.usage.cached,
            "cache_read_input_tokens": self.usage.cached,
            "cache_creation_input_tokens": 0,
            "output_tokens": self.usage.completion,
        }

    def _counts(self) -> dict[str, Any]:
        return {"usage": self._usage(), "timings": llamacpp_timings(self.usage, self.timings)}


def routes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/messages")
    @router.post("/messages")
    async def messages(body: MessagesBody, request: Request) -> Response:
        reply = MessagesReply(await service.plan(body.generation, request))
        return await service.answer(request, reply, EVENTS if body.stream else None)

    @router.post("/v1/messages/count_tokens")
    @router.post("/messages/count_tokens")
    async def count_tokens(body: CountBody, request: Request) -> dict[str, int]:
        plan = await service.plan(body.generation, request)
        return {"input_tokens": len(plan.prompts[0])}

    return router


def _joined(content: str | list[Block]) -> str:
    return content if isinstance(content, str) else "\n".join(block.text for block in content)
