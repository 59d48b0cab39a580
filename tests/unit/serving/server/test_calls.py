"""Calls of tools, found in text that comes in pieces of any size."""

from __future__ import annotations

import json

import pytest

from subllm.serving.server.calls import CallParser

ADD = '{"name": "add", "arguments": {"a": [1, "}\\"{"], "b": {}}}'
GIVEN = {"a": [1, '}"{'], "b": {}}
TAGGED = f"<tool_call>\n{ADD}\n</tool_call>"


def parse(text: str, size: int) -> tuple[str, list[tuple[str, str]], CallParser]:
    """The text beside calls, and of each call what its pieces say."""
    parser = CallParser(frozenset({"add", "now"}))
    said, calls = "", {}
    parts = [text[i : i + size] for i in range(0, len(text), size)]
    for pushed in [*(parser.push(part) for part in parts), parser.finish()]:
        said += pushed[0]
        for piece in pushed[1]:
            if piece.begins:
                calls[piece.number] = ""
            calls[piece.number] += piece.arguments
    assert list(calls.values()) == [call.arguments for call in parser.calls]
    return said, [(call.name, call.arguments) for call in parser.calls], parser


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("text", "said", "names"),
    [
        ("", "", []),
        ("a < b, <tool, </tool_call>", "a < b, <tool, </tool_call>", []),
        ("plain\n\n", "plain\n\n", []),
        (TAGGED, "", ["add"]),
        (f"I will add.\n\n{TAGGED}\n", "I will add.", ["add"]),
        (f"{TAGGED}\n{TAGGED}", "", ["add", "add"]),
        ('<tool_call>{"arguments": {}, "name": "now"}</tool_call>', "", ["now"]),
        (ADD, "", ["add"]),
        (f"\n{ADD}\n{ADD}", "", ["add", "add"]),
        (f"[{ADD}]", f"[{ADD}]", []),
        (f"```json\n{ADD}\n```", "", ["add"]),
        ("```python\nx = {}\n```", "```python\nx = {}\n```", []),
        ('{"name": "other", "arguments": {}}', '{"name": "other", "arguments": {}}', []),
        ('{"a": 1} and', '{"a": 1} and', []),
        ("<tool_call>what</tool_call>!", "<tool_call>what</tool_call>!", []),
        ('<tool_call>\n{"name": "ad', '<tool_call>\n{"name": "ad', []),
    ],
)
def test_pieces_of_any_size(text: str, said: str, names: list[str], size: int) -> None:
    found, calls, parser = parse(text, size)
    assert found == said
    assert [name for name, _ in calls] == names
    for (name, arguments), call in zip(calls, parser.calls, strict=True):
        assert json.loads(arguments) == (GIVEN if name == "add" else {}) and call.done


def test_a_call_that_is_cut_is_not_done() -> None:
    said, calls, parser = parse(TAGGED[:50], 3)
    assert said == "" and len(calls) == 1
    assert ADD.startswith('{"name": "add", "arguments": ' + calls[0][1])
    assert not parser.calls[0].done


def test_text_is_not_held_back_without_need() -> None:
    parser = CallParser(frozenset({"add"}))
    assert parser.push("Hello")[0] == "Hello"
    assert parser.push(" <b>")[0] == " <b>"
    assert parser.push("<tool_")[0] == ""
    assert parser.push("box>")[0] == "<tool_box>"
