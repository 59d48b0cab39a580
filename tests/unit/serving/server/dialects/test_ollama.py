"""Ollama's routes, with its own client, Continue's bodies and curl's."""

from __future__ import annotations

import json
from typing import Any

import ollama
import pytest

from unit.serving.server.connections import idle, send
from unit.serving.server.tiny import BASE, CONTEXT, MID, PRE, PYTHON, SUF, Live, until

OPTIONS: dict[str, Any] = {"num_predict": 3, "seed": 9, "num_ctx": 4096, "temperature": 0.01}
GENERATE = "/api/generate"
# What Continue's "ollama" provider sends.
CONTINUE: dict[str, Any] = {
    "model": PYTHON,
    "prompt": "def f(x):\n    ",
    "suffix": "\n",
    "raw": True,
    "options": {**OPTIONS, "stop": ["<|pre|>", "\n\n"], "num_gpu": None},
    "keep_alive": 1800,
    "stream": True,
}


@pytest.fixture
def client(shared: Live) -> ollama.Client:
    return ollama.Client(shared.url)


def last_prompt(shared: Live) -> tuple[int, ...]:
    return shared.shelf.engine(PYTHON).requests[-1].prompt


def test_continue_fills_in_the_middle(shared: Live) -> None:
    reply = shared.post(GENERATE, **CONTINUE)
    assert reply.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in reply.text.splitlines()]
    assert "".join(line["response"] for line in lines) == "abc"
    assert [line["done"] for line in lines] == [False] * 3 + [True]
    end = lines[-1]
    assert (end["done_reason"], end["eval_count"], end["model"]) == ("length", 3, PYTHON)
    assert end["prompt_eval_count"] == len(last_prompt(shared)) and end["eval_duration"] >= 0
    assert last_prompt(shared) == (PRE, *CONTINUE["prompt"].encode(), SUF, 10, MID)


def test_what_is_there(client: ollama.Client, shared: Live) -> None:
    assert PYTHON in [model.model for model in client.list().models]
    shown = client.show(PYTHON)
    assert ".Suffix" in (shown.template or "") and "<|mid|>" in (shown.template or "")
    assert shown.capabilities == ["completion", "insert", "tools"]
    info = shown.modelinfo or {}
    assert info[f"{info['general.architecture']}.context_length"] == CONTEXT
    major, minor, _ = map(int, shared.http.get("/api/version").json()["version"].split("."))
    assert (major, minor) >= (0, 6)
    client.generate(PYTHON, "x", options=OPTIONS)
    loaded = {model.model: model for model in client.ps().models}
    assert (loaded[PYTHON].size or 0) > 0


def test_generate_and_chat(client: ollama.Client, shared: Live) -> None:
    whole = client.generate(f"{BASE}:latest", "x", system="s", options=OPTIONS)
    assert whole.response == "abc" and whole.done_reason == "length"
    raw = client.generate(PYTHON, "x", raw=True, options=OPTIONS)
    assert raw.response == "abc" and last_prompt(shared) == (120,)
    message = {"role": "user", "content": "hi"}
    pieces = client.chat(PYTHON, [message], stream=True, options=OPTIONS)
    assert "".join(piece.message.content or "" for piece in pieces) == "abc"
    assert last_prompt(shared) == tuple(b"[user]hi\n[assistant]")
    assert client.chat(PYTHON, [message], options=OPTIONS).message.content == "abc"


def test_an_empty_prompt_loads(client: ollama.Client) -> None:
    reply = client.generate(PYTHON)
    assert (reply.response, reply.done_reason, reply.done) == ("", "load", True)
    assert client.chat(PYTHON, []).done_reason == "load"


def test_pull_fetches_nothing(client: ollama.Client) -> None:
    assert client.pull(PYTHON).status == "success"
    assert [line.status for line in client.pull(PYTHON, stream=True)] == ["success"]
    with pytest.raises(ollama.ResponseError, match="subllm pull") as caught:
        client.pull("llama3")
    assert caught.value.status_code == 404


def test_bodies_without_a_content_type(shared: Live) -> None:
    body = json.dumps({**CONTINUE, "stream": False}).encode()
    for headers in ({}, {"content-type": "application/x-www-form-urlencoded"}):
        reply = shared.http.post(GENERATE, content=body, headers=headers)
        assert reply.status_code == 200 and reply.json()["response"] == "abc"
        # A page can send such a body without a preflight; its browser says where it is from.
        for sign in ({"origin": "null"}, {"sec-fetch-site": "cross-site"}):
            reply = shared.http.post(GENERATE, content=body, headers={**headers, **sign})
            assert reply.status_code == 415 and list(reply.json()) == ["error"]
    assert shared.http.post("/infill", content=body).status_code == 415


@pytest.mark.parametrize(
    ("path", "change", "status"),
    [
        (GENERATE, {"format": "xml"}, 400),
        (GENERATE, {"format": {"type": "nothing"}}, 400),
        (GENERATE, {"images": ["x"]}, 400),
        (GENERATE, {"think": True}, 400),
        (GENERATE, {"keep_alive": "soon"}, 400),
        (GENERATE, {"options": {"mirostat": 1}}, 400),
        (GENERATE, {"options": {"temperature": "x"}}, 400),
        (GENERATE, {"model": "llama3"}, 404),
        ("/api/chat", {"messages": [{"role": "user", "content": "x"}], "tools": [{}]}, 400),
        ("/api/chat", {"messages": [{"role": "robot", "content": "x"}]}, 400),
        ("/api/show", {"model": None}, 400),
        ("/api/show", {"model": "llama3"}, 404),
        ("/api/embed", {}, 404),
    ],
)
def test_errors(shared: Live, path: str, change: dict[str, Any], status: int) -> None:
    reply = shared.post(path, **{**CONTINUE, **change})
    assert reply.status_code == status, reply.text
    assert list(reply.json()) == ["error"] and isinstance(reply.json()["error"], str)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_the_work(slow: Live, stream: bool) -> None:
    engine = slow.shelf.engine(PYTHON)
    body = {**CONTINUE, "options": {"num_predict": 200}, "stream": stream}
    connection = send(slow, GENERATE, body)
    engine.hold_at = engine.steps + 1
    until(lambda: engine.held)
    connection.close()
    until(lambda: slow.worker.open == 0)
    engine.gate.set()
    until(lambda: idle(slow) and not engine.has_work())


def test_a_failure_in_a_stream_is_a_line(slow: Live) -> None:
    engine = slow.shelf.engine(PYTHON)
    engine.delay = 0.0
    with slow.http.stream("POST", GENERATE, json=CONTINUE) as reply:
        lines = reply.iter_lines()
        assert "response" in json.loads(next(lines))
        engine.fail = RuntimeError("broken")
        rest = [json.loads(line) for line in lines]
    # Three tokens may have come before it failed.
    assert list(rest[-1]) == ["error"] or rest[-1]["done"]
