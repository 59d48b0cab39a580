"""Messages through Anthropic's own client."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from unit.serving.server.tiny import PATIENCE, PYTHON, Live, live, shelf

HI: Any = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
BODY: dict[str, Any] = {"model": PYTHON, "messages": HI, "max_tokens": 3}


@pytest.fixture
def client(shared: Live) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=shared.url, api_key="none", max_retries=0, timeout=PATIENCE)


def test_a_message(client: anthropic.Anthropic, shared: Live) -> None:
    reply = client.messages.create(**BODY, system="be brief")
    assert reply.content[0].type == "text" and reply.role == "assistant"
    assert reply.stop_reason in ("max_tokens", "end_turn") and reply.model == PYTHON
    prompt = shared.shelf.engine(PYTHON).requests[-1].prompt
    assert prompt == tuple(b"[system]be brief\n[user]hi\n[assistant]")
    usage = reply.usage
    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == len(prompt)


def test_a_stream_says_the_same(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(**BODY)
    with client.messages.stream(**BODY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    block = whole.content[0]
    assert block.type == "text" and text == block.text
    assert (final.stop_reason, final.usage.output_tokens) == (
        whole.stop_reason,
        whole.usage.output_tokens,
    )


def test_the_events_of_a_stream(shared: Live) -> None:
    events = shared.post("/v1/messages", **BODY, stream=True).text.strip().split("\n\n")
    names = [event.partition("\n")[0].removeprefix("event: ") for event in events]
    assert names[:2] == ["message_start", "content_block_start"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(names[2:-3]) <= {"content_block_delta"}


def test_a_stop_sequence_is_named(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(**{**BODY, "max_tokens": 8})
    block = whole.content[0]
    assert block.type == "text"
    if not block.text:
        pytest.fail("the tiny model wrote nothing to stop at")
    stopped = client.messages.create(**BODY, stop_sequences=[block.text[0]])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", block.text[0])


def test_tokens_are_counted(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model=PYTHON, messages=HI)
    assert counted.input_tokens == len(b"[user]hi\n[assistant]")


@pytest.mark.parametrize(
    ("change", "status", "kind"),
    [
        ({"max_tokens": None}, 400, "invalid_request_error"),
        ({"tools": [{"name": "x"}]}, 400, "invalid_request_error"),
        ({"thinking": {"type": "enabled"}}, 400, "invalid_request_error"),
        ({"messages": [*HI, {"role": "assistant", "content": "x"}]}, 400, "invalid_request_error"),
        ({"model": "claude"}, 404, "not_found_error"),
    ],
)
def test_errors(shared: Live, change: dict[str, Any], status: int, kind: str) -> None:
    reply = shared.post("/v1/messages", **{**BODY, **change})
    assert reply.status_code == status, reply.text
    body = reply.json()
    assert (body["type"], body["error"]["type"]) == ("error", kind)


def test_the_key_may_stand_in_its_own_header() -> None:
    with live(shelf(), api_key="secret") as server:
        key = {"x-api-key": "secret"}
        body = {"model": PYTHON, "messages": HI}
        path = "/v1/messages/count_tokens"
        assert server.http.post(path, json=body, headers=key).status_code == 200
        assert server.http.get("/slots", headers=key).status_code == 200
        refused = server.http.post(path, json=body, headers={"x-api-key": "wrong"})
        assert refused.status_code == 401
        assert refused.json()["error"]["type"] == "authentication_error"
        bearer = {"authorization": "Bearer secret"}
        assert server.http.post(path, json=body, headers=bearer).status_code == 200
        assert server.http.get("/v1/models", headers=key).status_code == 200
        for open_path in ("/api/tags", "/props", "/metrics", "/v1/health", "/api/version"):
            assert server.http.get(open_path).status_code == 401
