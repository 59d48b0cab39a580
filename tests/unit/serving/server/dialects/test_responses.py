"""OpenAI's responses through its own client."""

from __future__ import annotations

from typing import Any

import pytest

from subllm.engine.request import TokenEvent
from subllm.serving.routing.router import Message, Router
from subllm.serving.routing.sessions import Sessions
from subllm.serving.server.config import ServerConfig
from subllm.serving.server.convert import Planner
from subllm.serving.server.dialects.responses_reply import ResponsesReply
from subllm.serving.server.dialects.responses_wire import ResponsesBody
from subllm.serving.server.generation import Caller
from subllm.serving.server.models import ModelSet
from subllm.serving.server.tools import CallingMessage, PastCall
from unit.serving.server.tiny import BASE, PYTHON, Live, shelf

BODY: dict[str, Any] = {"model": PYTHON, "input": "hi", "max_output_tokens": 3}
TURNS: Any = [
    {"role": "developer", "content": "be brief"},
    {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
]
NOW: dict[str, Any] = {"type": "function", "name": "now", "parameters": {"type": "object"}}


def test_text(shared: Live) -> None:
    reply = shared.openai.responses.create(**BODY, instructions="be brief")
    assert reply.status in ("completed", "incomplete") and reply.model == PYTHON
    prompt = shared.shelf.engine(PYTHON).requests[-1].prompt
    assert prompt == tuple(b"[system]be brief\n[user]hi\n[assistant]")
    assert reply.usage is not None and reply.usage.input_tokens == len(prompt)
    again = shared.openai.responses.create(**{**BODY, "input": TURNS})
    assert again.output_text == reply.output_text
    assert shared.shelf.engine(PYTHON).requests[-1].prompt == prompt


def test_a_stream_says_the_same(shared: Live) -> None:
    whole = shared.openai.responses.create(**BODY)
    events = list(shared.openai.responses.create(**BODY, stream=True))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert events[-1].type == f"response.{whole.status}"


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"store": True}, 400, "store"),
        ({"previous_response_id": "resp_1"}, 400, "previous_response_id"),
        ({"tools": [{"type": "function"}]}, 400, "tools"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, 400, "text"),
        ({"tools": [{"type": "web_search"}]}, 400, "tools"),
        ({"tools": [{**NOW, "defer_loading": True}]}, 400, "defer_loading"),
        ({"tools": [NOW, NOW]}, 400, "tools"),
        ({"tools": [NOW], "tool_choice": {"type": "function", "name": "x"}}, 400, "tool_choice"),
        ({"tool_choice": "required"}, 400, "tool_choice"),
        ({"input": [{"type": "reasoning", "summary": []}]}, 400, "input"),
        ({"text": {"verbosity": "low"}}, 400, "text.verbosity"),
        ({"reasoning": {"effort": "high"}}, 400, "reasoning"),
        ({"input": []}, 400, "input"),
        ({"model": "gpt-5"}, 404, "model"),
    ],
)
def test_errors(shared: Live, change: dict[str, Any], status: int, param: str) -> None:
    reply = shared.post("/v1/responses", **{**BODY, **change})
    assert reply.status_code == status, reply.text
    assert reply.json()["error"]["param"] == param


def test_what_asks_for_nothing_is_accepted(shared: Live) -> None:
    body = {**BODY, "store": False, "tools": [], "metadata": {"a": "b"}, "truncation": "disabled"}
    reply = shared.post("/v1/responses", **body)
    assert reply.status_code == 200 and reply.json()["metadata"] == {"a": "b"}


def test_calls_belong_to_what_was_said_before_them() -> None:
    """What a reply had is sent back as it came, with what the tools said."""
    call = {"type": "function_call", "name": "now", "id": "fc_1", "status": "completed"}
    said: list[Any] = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "well"}]},
        {**call, "call_id": "1", "arguments": '{"a": 1}'},
        {**call, "call_id": "2", "arguments": ""},
        {"type": "function_call_output", "call_id": "1", "output": "one"},
        {
            "type": "function_call_output",
            "call_id": "2",
            "output": [{"type": "input_text", "text": "two"}],
        },
        {**call, "call_id": "3", "arguments": "no JSON"},
    ]
    given = ResponsesBody(**{**BODY, "input": said, "tools": [NOW]}).generation().messages
    first, second, third = (
        PastCall(str(number), "now", arguments)
        for number, arguments in enumerate(({"a": 1}, {}, "no JSON"), 1)
    )
    assert given == (
        CallingMessage("user", "hi"),
        CallingMessage("assistant", "well", (first, second)),
        Message("tool", "one"),
        Message("tool", "two"),
        CallingMessage("assistant", "", (third,)),
    )


def test_text_comes_before_calls_as_an_item_of_its_own() -> None:
    kept = shelf()
    models = ModelSet(kept, kept.load, kept.tokenizer_of)
    router = Router(models.sub_models, Sessions(lambda: 0.0), default_base=BASE)
    body = ResponsesBody(**{**BODY, "tools": [NOW]})
    reply = ResponsesReply(
        Planner(models, router, ServerConfig()).plan(body.generation(), Caller()), body
    )
    told = reply.opening()
    for char in 'Well.\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n':
        told += reply.feed(0, TokenEvent("1", char))
    told += reply.feed(0, TokenEvent("1", "", finish_reason="stop"))
    told += reply.closing()
    message, call = reply.whole()["output"]
    assert message["content"][0]["text"] == "Well." and message["status"] == "completed"
    assert (call["name"], call["arguments"], call["status"]) == ("now", "{}", "completed")
    for kind in ("added", "done"):
        places = [e["output_index"] for e in told if e["type"] == f"response.output_item.{kind}"]
        assert places == [0, 1]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
