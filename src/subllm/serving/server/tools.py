"""Tools that a chat may call, in the form that models of Qwen's and Hermes' kind write:
<tool_call>, a line with {"name": ..., "arguments": {...}}, </tool_call>."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from subllm.models.text.compact_json import COMPACT
from subllm.serving.routing.router import Message

BEGIN, END = "<tool_call>", "</tool_call>"

REQUIRED = ""
"""As a choice, and no tool's name: at least one call, and nothing else."""


@dataclass(frozen=True)
class Tool:
    """`parameters` is a JSON schema of the arguments, an object."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def template(self) -> dict[str, Any]:
        """As chat templates expect it."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
        }
        return {"type": "function", "function": function}

    @property
    def schema(self) -> dict[str, Any]:
        """Of its arguments; none but those that it names, unless it says so."""
        return {
            "additionalProperties": False,
            **self.parameters,
            "type": "object",
            "x-guidance": dict(COMPACT),
        }


@dataclass(frozen=True)
class ToolUse:
    """choice    None: the model decides; REQUIRED; or a tool's name, which is called
    parallel  there may be several calls
    """

    tools: tuple[Tool, ...]
    choice: str | None = None
    parallel: bool = True

    @property
    def callable(self) -> tuple[Tool, ...]:
        if self.choice in (None, REQUIRED):
            return self.tools
        return tuple(tool for tool in self.tools if tool.name == self.choice)


@dataclass(frozen=True)
class PastCall:
    """One that a message of the model made. `arguments` is an object, or text that is none."""

    id: str
    name: str
    arguments: Mapping[str, Any] | str


@dataclass(frozen=True)
class CallingMessage(Message):
    """A message of the model, with its calls."""

    calls: tuple[PastCall, ...] = ()


def turn(message: Message) -> dict[str, Any]:
    """A message as chat templates expect it."""
    turn: dict[str, Any] = {"role": message.role, "content": message.text}
    if isinstance(message, CallingMessage) and message.calls:
        turn["tool_calls"] = [
            {
                "type": "function",
                "id": call.id,
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.calls
        ]
    return turn


def arguments_of(text: str) -> Mapping[str, Any] | str:
    """Of a past call, from the JSON that clients keep it as."""
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def grammar(use: ToolUse, schema: Mapping[str, Any] | None = None) -> str:
    """What a reply may be: text in which calls are well-formed, or calls alone where they are
    required. With `schema` the text is JSON of that form."""
    rules = [f"call: {' | '.join(f'call_{i}' for i in range(len(use.callable)))}"]
    for number, tool in enumerate(use.callable):
        head = json.dumps('{"name": ' + json.dumps(tool.name) + ', "arguments": ')
        rules.append(f'call_{number}: {head} %json {json.dumps(tool.schema)} "}}"')
    more = ' ("\\n" tag)*' if use.parallel else ""
    tag = f'tag: "{BEGIN}\\n" call "\\n{END}"'
    if use.choice is not None:
        rules += [f"start: tag{more}", tag]
    elif schema is not None:
        compact = json.dumps({**schema, "x-guidance": dict(COMPACT)})
        rules += [f"start: content | tag{more}", f"content: %json {compact}", tag]
    else:
        rules += [
            "start: tag* text" if use.parallel else "start: tag | text",
            "text: TEXT",
            "TEXT: /(.|\\n)*/",
            f'opening[lazy]: TEXT "{BEGIN}"',
            f'tag: opening "\\n" call "\\n{END}"',
        ]
    return "%llguidance {}\n" + "\n".join(rules) + "\n"
