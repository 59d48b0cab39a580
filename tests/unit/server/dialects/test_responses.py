"""OpenAI's responses through its own client."""

from __future__ import annotations

from typing import Any

import pytest

from server.tiny import PYTHON, Live

BODY: dict[str, Any] = {"model": PYTHON, "input": "hi", "max_output_tokens": 3}
TURNS: Any = [
    {"role": "developer", "content": "be brief"},
    {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
]


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
