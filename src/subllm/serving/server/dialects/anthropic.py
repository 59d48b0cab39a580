"""Anthropic's messages: text and calls of tools, whole or as a stream of named events."""

from __future__ import annotations

import json
import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from subllm.engine.request import TokenEvent
from subllm.serving.routing.router import Message
from subllm.serving.server.calls import Call, CallPiece
from subllm.serving.server.convert import Plan
from subllm.serving.server.dialect import Dialect
from subllm.serving.server.dialects.body import Body
from subllm.serving.server.dialects.tools_wire import MOST_TOOLS, Schema, ToolName, tool_use
from subllm.serving.server.errors import ApiError, bad_request
from subllm.serving.server.framing import Events
from subllm.serving.server.generation import Draws, Generation
from subllm.serving.server.refusals import refuse
from subllm.serving.server.reply import Chunk, Reply
from subllm.serving.server.service import Service
from subllm.serving.server.timings import llamacpp_timings
from subllm.serving.server.tools import CallingMessage, PastCall, Tool, ToolUse
from subllm.serving.server.values import MaxTokens, Text, Texts, TopK, TopP, Wire

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
    "thinking": ({"type": "disabled"},),
    "container": (),
    "mcp_servers": (),
    "context_management": (),
    "diagnostics": (),
    "inference_geo": (),
    "speed": ("standard",),
}


def error_body(error: ApiError) -> dict[str, Any]:
    kind = _KINDS.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}}


ANTHROPIC = Dialect(error_body)
EVENTS = Events(error_body, named=True, waiting={"type": "ping"})
_TEXT: dict[str, Any] = {"type": "text", "text": ""}


class TextBlock(Wire):
    """`cache_control` is accepted: prefixes are always kept."""

    type: Literal["text"]
    text: Text


TextBlocks = Annotated[list[TextBlock], Field(fail_fast=True)]


class CallBlock(Wire):
    type: Literal["tool_use"]
    id: Text
    name: ToolName
    input: Schema


class ResultBlock(Wire):
    """`is_error` is accepted: the content says it."""

    type: Literal["tool_result"]
    tool_use_id: Text
    content: Text | TextBlocks | None = None


Block = Annotated[TextBlock | CallBlock | ResultBlock, Field(discriminator="type")]


class Turn(Wire):
    role: Literal["user", "assistant", "system"]
    content: Text | Annotated[list[Block], Field(fail_fast=True)]

    def messages(self) -> list[Message]:
        """Results of tools come first, each as a message of its own."""
        if isinstance(self.content, str):
            return [Message(self.role, self.content)]
        results = [block for block in self.content if isinstance(block, ResultBlock)]
        texts = [block for block in self.content if isinstance(block, TextBlock)]
        calls = tuple(
            PastCall(block.id, block.name, block.input)
            for block in self.content
            if isinstance(block, CallBlock)
        )
        said = [Message("tool", _joined(block.content or "")) for block in results]
        if texts or calls or not results:
            said.append(CallingMessage(self.role, _joined(texts), calls))
        return said


class ToolBody(Wire):
    """A tool of the client's own; `cache_control` is accepted."""

    type: Literal["custom"] | None = None
    name: ToolName
    description: Text | None = None
    input_schema: Schema

    def tool(self) -> Tool:
        return Tool(self.name, self.description or "", self.input_schema)


class ToolChoice(Wire):
    type: Literal["auto", "any", "tool", "none"]
    name: ToolName | None = None
    disable_parallel_tool_use: bool | None = None


class OutputFormat(Wire):
    type: Literal["json_schema"]
    schema_: Schema = Field(alias="schema")


class OutputConfig(Wire):
    format: OutputFormat | None = None


class CountBody(Body):
    messages: Annotated[list[Turn], Field(min_length=1, fail_fast=True)]
    system: Text | TextBlocks | None = None
    tools: Annotated[list[ToolBody], Field(fail_fast=True, max_length=MOST_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None

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
        return (*first, *(message for turn in self.messages for message in turn.messages()))

    def tool_use(self) -> ToolUse | None:
        """Raises ApiError."""
        choice = self.tool_choice or ToolChoice(type="auto")
        named = choice.type == "tool"
        word = {"auto": "auto", "any": "required", "none": "none", "tool": choice.name}[choice.type]
        return tool_use(
            [tool.tool() for tool in self.tools or ()],
            word,
            named=named,
            parallel=not choice.disable_parallel_tool_use,
        )

    def form(self) -> Schema | None:
        """Raises ApiError."""
        config = self.output_config or OutputConfig()
        others = {
            f"output_config.{name}": value for name, value in (config.model_extra or {}).items()
        }
        refuse(others, dict.fromkeys(others, ()))
        given = config.format or self.output_format
        return given.schema_ if given else None

    def asked(self) -> dict[str, Any]:
        """The fields of a `Generation` that make its prompt. Raises ApiError."""
        return {
            **self.chosen(),
            "messages": self.turns(),
            "tools": self.tool_use(),
            "form": self.form(),
        }

    def generation(self) -> Generation:
        """For its prompt alone."""
        return Generation(**self.asked(), max_tokens=0)


class MessagesBody(CountBody):
    """`metadata`, `service_tier`, `user_profile_id`, `workspace_id` and `cache_control` (prefixes
    are always kept) are accepted and of no effect."""

    max_tokens: Annotated[MaxTokens, Field(ge=1)]
    stop_sequences: Texts | None = None
    temperature: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    stream: bool | None = None

    def generation(self) -> Generation:
        """Raises ApiError."""
        return Generation(
            **self.asked(),
            max_tokens=self.max_tokens,
            stop=tuple(self.stop_sequences or ()),
            draws=Draws(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k),
        )


class MessagesReply(Reply):
    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._id = f"msg_{uuid.uuid4().hex}"
        self._block = -1  # the last one that was begun
        self._open = False

    def opening(self) -> list[Chunk]:
        message = {**self._message([]), "stop_reason": None, "stop_sequence": None}
        start = {"type": "message_start", "message": message}
        return [start, *(self._begin(_TEXT) if self.plan.tools is None else [])]

    def chunks(self, index: int, event: TokenEvent) -> list[Chunk]:
        if not event.text:
            return []
        begun = [] if self._open else self._begin(_TEXT)
        return [*begun, self._delta({"type": "text_delta", "text": event.text})]

    def call_chunks(self, index: int, piece: CallPiece) -> list[Chunk]:
        if piece.begins:
            return self._begin(_call(piece.call, {}))
        if piece.arguments:
            return [self._delta({"type": "input_json_delta", "partial_json": piece.arguments})]
        return self._end()

    def closing(self) -> list[Chunk]:
        end = {"type": "message_delta", "delta": self._stop(), **self._counts()}
        return [*self._end(), end, {"type": "message_stop"}]

    def whole(self) -> dict[str, Any]:
        """A call that max_tokens cut is left out: its input is no JSON."""
        calls = [_call(c, json.loads(c.arguments)) for c in self.calls(0) if c.done]
        text = self.text(0)
        content = [{**_TEXT, "text": text}] if text or not calls else []
        return {**self._message([*content, *calls]), **self._stop(), **self._counts()}

    def _begin(self, block: dict[str, Any]) -> list[Chunk]:
        ended = self._end()
        self._block, self._open = self._block + 1, True
        start = {"type": "content_block_start", "index": self._block, "content_block": block}
        return [*ended, start]

    def _delta(self, delta: dict[str, Any]) -> Chunk:
        return {"type": "content_block_delta", "index": self._block, "delta": delta}

    def _end(self) -> list[Chunk]:
        if not self._open:
            return []
        self._open = False
        return [{"type": "content_block_stop", "index": self._block}]

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
        reason = "tool_use" if self.calls(0) else "end_turn"
        return {"stop_reason": reason, "stop_sequence": None}

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


def _call(call: Call, given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": given}


def _joined(content: str | list[TextBlock]) -> str:
    return content if isinstance(content, str) else "\n".join(block.text for block in content)
