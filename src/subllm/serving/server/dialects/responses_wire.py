"""The body of OpenAI's responses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from subllm.serving.routing.router import Message
from subllm.serving.server.dialects.body import Body
from subllm.serving.server.dialects.tools_wire import (
    ANY_OBJECT,
    MOST_TOOLS,
    Schema,
    ToolName,
    tool_use,
)
from subllm.serving.server.errors import bad_request
from subllm.serving.server.generation import Draws, Generation
from subllm.serving.server.refusals import refuse
from subllm.serving.server.tools import CallingMessage, PastCall, Tool, ToolUse, arguments_of
from subllm.serving.server.values import MaxTokens, Temperature, Text, TopP, Wire

_REFUSED: dict[str, tuple[Any, ...]] = {
    "access_programs": (),
    "background": (),
    "background_options": (),
    "context_management": (),
    "conversation": (),
    "image": (),
    "include": (["reasoning.encrypted_content"],),  # there is no reasoning
    "max_tool_calls": (),
    "moderation": (),
    "previous_response_id": (),
    "prompt": (),
    "prompt_cache_retention": ("in_memory", "in-memory"),
    "reasoning": ({"effort": "none"},),
    "service_tier": ("auto", "default"),
    "store": (),
    "top_logprobs": (),
    "truncation": ("disabled",),
}
_REFUSED_OF_TEXT: dict[str, tuple[Any, ...]] = {"text.verbosity": ("medium",)}
_REFUSED_OF_A_TOOL: dict[str, tuple[Any, ...]] = {
    "allowed_callers": (["direct"],),
    "async": (),
    "defer_loading": (),
}


class Part(Wire):
    type: Literal["input_text", "output_text", "text"]
    text: Text


Content = Text | Annotated[list[Part], Field(fail_fast=True)]


class MessageItem(Wire):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content

    def message(self) -> Message:
        role = "system" if self.role == "developer" else self.role
        return CallingMessage(role, _joined(self.content))


class CallItem(Wire):
    """A call that the model made before; `status` is accepted."""

    type: Literal["function_call"]
    call_id: Text
    name: ToolName
    arguments: Text

    def past(self) -> PastCall:
        return PastCall(self.call_id, self.name, arguments_of(self.arguments))


class ResultItem(Wire):
    """`call_id` and `name` are accepted: results come in the order of the calls."""

    type: Literal["function_call_output"]
    call_id: Text | None = None
    output: Content

    def message(self) -> Message:
        return Message("tool", _joined(self.output))


def _kind(item: Any) -> Any:
    """A message may leave its type out."""
    if isinstance(item, dict):
        return item.get("type", "message")
    return getattr(item, "type", None)


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[ResultItem, Tag("function_call_output")],
    Discriminator(_kind),
]


class FunctionTool(Wire):
    """`strict` and `output_schema` are accepted: arguments always follow the schema, and results
    are text."""

    type: Literal["function"]
    name: ToolName
    description: Text | None = None
    parameters: Schema | None = None
    strict: bool | None = None

    def tool(self) -> Tool:
        """Raises ApiError."""
        refuse(self.model_extra, _REFUSED_OF_A_TOOL)
        return Tool(self.name, self.description or "", self.parameters or {})


class NamedChoice(Wire):
    type: Literal["function"]
    name: ToolName


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
    _options (prefixes are always kept), and `include_obfuscation` of stream_options."""

    input: Text | Annotated[list[Item], Field(min_length=1, fail_fast=True)]
    instructions: Text | None = None
    max_output_tokens: Annotated[MaxTokens, Field(ge=1)] | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    text: TextOptions | None = None
    tools: Annotated[list[FunctionTool], Field(fail_fast=True, max_length=MOST_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None

    def generation(self) -> Generation:
        """Raises ApiError."""
        refuse(self.model_extra, _REFUSED)
        told = self.text or TextOptions()
        extra = {f"text.{name}": value for name, value in (told.model_extra or {}).items()}
        refuse(extra, _REFUSED_OF_TEXT)
        first = [Message("system", self.instructions)] if self.instructions else []
        given = self.input
        turns = [Message("user", given)] if isinstance(given, str) else _turns(given)
        return Generation(
            **self.chosen(),
            messages=(*first, *turns),
            tools=self.tool_use(),
            max_tokens=self.max_output_tokens,
            draws=Draws(temperature=self.temperature, top_p=self.top_p),
            form=told.format.form() if told.format else None,
        )

    def tool_use(self) -> ToolUse | None:
        """Raises ApiError."""
        choice, named = self.tool_choice, isinstance(self.tool_choice, NamedChoice)
        return tool_use(
            [tool.tool() for tool in self.tools or ()],
            choice.name if isinstance(choice, NamedChoice) else choice,
            named=named,
            parallel=self.parallel_tool_calls is not False,
        )


def _turns(items: Iterable[MessageItem | CallItem | ResultItem]) -> list[Message]:
    """Calls belong to what the model said before them."""
    turns: list[Message] = []
    for item in items:
        if not isinstance(item, CallItem):
            turns.append(item.message())
            continue
        if not (turns and isinstance(turns[-1], CallingMessage) and turns[-1].role == "assistant"):
            turns.append(CallingMessage("assistant", ""))
        last = turns[-1]
        assert isinstance(last, CallingMessage)
        turns[-1] = replace(last, calls=(*last.calls, item.past()))
    return turns


def _joined(content: str | list[Part]) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content)
