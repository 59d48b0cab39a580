"""Tools, calls and the form of a reply, as OpenAI's and Ollama's bodies carry them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from subllm.serving.server.errors import bad_request
from subllm.serving.server.tools import REQUIRED, PastCall, Tool, ToolUse, arguments_of
from subllm.serving.server.values import Text, Wire

MOST_TOOLS = 128

ANY_OBJECT: dict[str, Any] = {"type": "object"}
"""What `json_object` and Ollama's "json" ask for."""

Schema = dict[str, Any]
ToolName = Annotated[Text, Field(min_length=1, max_length=256)]


class Function(Wire):
    """`strict` is accepted: arguments always follow the schema."""

    name: ToolName
    description: Text | None = None
    parameters: Schema | None = None


class ToolBody(Wire):
    type: Literal["function"] = "function"
    function: Function

    def tool(self) -> Tool:
        function = self.function
        return Tool(function.name, function.description or "", function.parameters or {})


ToolBodies = Annotated[list[ToolBody], Field(fail_fast=True, max_length=MOST_TOOLS)]


class Chosen(Wire):
    name: ToolName


class NamedChoice(Wire):
    type: Literal["function"]
    function: Chosen


ToolChoice = Literal["none", "auto", "required"] | NamedChoice


class PastFunction(Wire):
    name: ToolName
    arguments: Text | Schema = ""


class PastCallBody(Wire):
    """`arguments` are JSON in a string, or an object with Ollama."""

    type: Literal["function"] = "function"
    id: Text | None = None
    function: PastFunction

    def past(self) -> PastCall:
        given = self.function.arguments
        arguments = arguments_of(given) if isinstance(given, str) else given
        return PastCall(self.id or "", self.function.name, arguments)


PastCalls = Annotated[list[PastCallBody], Field(fail_fast=True, max_length=MOST_TOOLS)]


class NamedSchema(Wire):
    """`strict` is accepted: replies always follow the schema."""

    name: Text | None = None
    description: Text | None = None
    schema_: Schema | None = Field(None, alias="schema")


class ResponseFormat(Wire):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    def form(self) -> Schema | None:
        """Raises ApiError."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return ANY_OBJECT
        if self.json_schema is None or self.json_schema.schema_ is None:
            raise bad_request("response_format: json_schema.schema is missing", "response_format")
        return self.json_schema.schema_


def tool_use(
    tools: Sequence[Tool], choice: str | None = None, *, named: bool = False, parallel: bool = True
) -> ToolUse | None:
    """choice  "none", "auto", "required", or a tool's name where `named`

    Raises ApiError for a choice without the tool that it names."""
    if not tools:
        if choice in (None, "none", "auto") and not named:
            return None
        raise bad_request("tool_choice needs tools", "tool_choice")
    names = [tool.name for tool in tools]
    if len(set(names)) < len(names):
        raise bad_request("tools: two have the same name; rename one", "tools")
    if not named:
        if choice == "none":
            return None
        return ToolUse(tuple(tools), REQUIRED if choice == "required" else None, parallel)
    if choice not in names:
        raise bad_request(f"tool_choice: none of the tools is {json.dumps(choice)}", "tool_choice")
    return ToolUse(tuple(tools), choice, parallel=False)
