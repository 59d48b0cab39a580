"""The wire form of streams, and clients that leave: raw sockets."""

from __future__ import annotations

import concurrent.futures
import json
import socket
from typing import Any

import pytest

from subllm.errors import SettingsError
from subllm.serving.server.config import ServerConfig
from unit.serving.server.connections import COMPLETIONS, LONG, body_of, idle, read_all, send
from unit.serving.server.tiny import (
    BASE,
    CPP,
    JAVA,
    PYTHON,
    Engine,
    Live,
    live,
    needs,
    shelf,
    until,
)


def test_events_byte_by_byte(shared: Live) -> None:
    body = {**LONG, "seed": 7, "max_tokens": 11, "stream": True}
    response = read_all(send(shared, COMPLETIONS, body))
    head = response.partition(b"\r\n\r\n")[0].decode().lower().split("\r\n")
    assert head[0] == "http/1.1 200 ok"
    assert "content-type: text/event-stream; charset=utf-8" in head
    assert "cache-control: no-store" in head and f"x-subllm-model: {PYTHON}" in head
    events = body_of(response)
    assert b"\r" not in events and events.endswith(b"data: [DONE]\n\n")
    *lines, done, empty = events.decode().split("\n\n")
    assert (done, empty) == ("data: [DONE]", "")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert all("\n" not in line and line.startswith("data: {") for line in lines)
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["a", "é", "€", "😀", "."]
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None] * 4 + ["length"]
    assert all("usage" not in chunk for chunk in chunks)  # only if asked for


def test_keep_alive_comments_while_nothing_comes(slow: Live) -> None:
    engine = slow.shelf.engine(PYTHON)
    engine.gate.clear()
    connection = send(slow, COMPLETIONS, {**LONG, "max_tokens": 2, "stream": True})
    data = b""
    while data.count(b": keep-alive\n\n") < 2:
        data += connection.recv(4096)
    engine.gate.set()
    response = data + read_all(connection)
    events = body_of(response).decode()
    assert "ping" not in events and events.endswith("data: [DONE]\n\n")
    assert events.startswith(": keep-alive\n\n: keep-alive\n\n")


def test_a_connection_serves_several_streams(shared: Live) -> None:
    for _ in range(3):
        body = {**LONG, "max_tokens": 5, "stream": True}
        with shared.http.stream("POST", COMPLETIONS, json=body) as reply:
            assert list(reply.iter_lines())[-2] == "data: [DONE]"


def leave(live: Live, engine: Engine, connection: socket.socket, steps: int) -> None:
    """Hang up after `steps` steps, while the next one is held; let the engine go on when the
    server has noticed."""
    engine.hold_at = steps
    until(lambda: engine.held)
    connection.close()
    until(lambda: live.worker.open == 0)
    engine.gate.set()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "body", [{}, {"prompt": "x" * 250}], ids=["decoding", "in one of 16 pieces of its prompt"]
)
def test_a_client_that_leaves_stops_the_work(
    slow: Live, body: dict[str, Any], stream: bool
) -> None:
    engine = slow.shelf.engine(PYTHON)
    leave(slow, engine, send(slow, COMPLETIONS, {**LONG, **body, "stream": stream}), 3)
    until(lambda: len(engine.aborted) == 1 and not engine.has_work())
    assert engine.steps <= 5  # the one that was held, and one that says "aborted"
    until(lambda: idle(slow))


def test_a_client_that_leaves_during_scoring(slow: Live) -> None:
    engine = slow.shelf.engine(PYTHON)
    body = {**LONG, "prompt": "x" * 250, "echo": True, "logprobs": 0, "max_tokens": 0}
    leave(slow, engine, send(slow, COMPLETIONS, body), 3)
    until(lambda: len(engine.aborted) == 1 and not engine.has_work())
    assert engine.steps <= 5  # of 16
    assert slow.post(COMPLETIONS, **body).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_the_queue(slow: Live, stream: bool) -> None:
    engine = slow.shelf.engine(PYTHON)
    first = send(slow, COMPLETIONS, {**LONG, "max_tokens": 40})
    until(lambda: len(engine.requests) == 1)
    second = send(slow, COMPLETIONS, {**LONG, "prompt": "other", "stream": stream, "n": 3})
    until(lambda: len(engine.requests) == 4)
    engine.hold_at = engine.steps
    until(lambda: engine.held)
    second.close()
    until(lambda: slow.worker.open == 1)
    engine.gate.set()
    assert b" 200 " in read_all(first)
    until(lambda: not engine.has_work())
    assert len(engine.aborted) == 3
    # Nothing ran for the one that left: 40 tokens, and a step to say what was dropped.
    assert engine.steps <= 41


def test_a_client_that_leaves_while_its_model_loads(slow: Live) -> None:
    loading = slow.shelf
    connections: list[socket.socket] = []

    def hang_up(name: str) -> None:
        until(lambda: bool(connections))
        connections.pop().close()

    loading.loading = hang_up
    connections.append(send(slow, COMPLETIONS, {**LONG, "model": JAVA}))
    until(lambda: any(engine.name == JAVA for engine in loading.engines))
    until(lambda: slow.health()["loading"] is None)
    # The load is finished for the next one, the work is not begun or ended at once.
    until(lambda: idle(slow))
    assert loading.engine(JAVA).steps < 200  # of as many
    loading.loading = lambda name: None
    assert slow.post(COMPLETIONS, **{**LONG, "model": JAVA, "max_tokens": 1}).status_code == 200
    assert sum(engine.name == JAVA for engine in loading.engines) == 1


def test_two_models_at_once(slow: Live) -> None:
    python = slow.shelf.engine(PYTHON)
    python.delay = 0.1
    body = {**LONG, "stream": True}
    with slow.http.stream("POST", COMPLETIONS, json=body) as reply:
        lines = reply.iter_lines()
        next(lines)
        java = slow.post(COMPLETIONS, **{**LONG, "model": JAVA, "max_tokens": 5})
        assert java.json()["model"] == JAVA
        assert python.has_work()  # Java did not wait for Python, which needs 20 s
        python.delay = 0.0
        assert [line for line in lines if line][-1] == "data: [DONE]"


def test_eight_clients_get_what_one_gets(shared: Live) -> None:
    bodies = [
        {
            **LONG,
            "model": (PYTHON, JAVA)[i % 2],
            "prompt": f"{i} def f",
            "max_tokens": 8 + i,
            "temperature": (0.0, 1.3)[i % 3 == 0],
            "seed": 100 + i,
        }
        for i in range(8)
    ]

    def text(body: dict[str, Any]) -> str:
        if body.pop("stream"):
            client = shared.openai.completions
            extra = {"ignore_eos": body.pop("ignore_eos")}
            return "".join(
                chunk.choices[0].text
                for chunk in client.create(**body, stream=True, extra_body=extra)
            )
        return str(shared.post(COMPLETIONS, **body).json()["choices"][0]["text"])

    alone = [text({**body, "stream": False}) for body in bodies]
    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        together = list(
            clients.map(text, [{**body, "stream": i % 2 == 0} for i, body in enumerate(bodies)])
        )
    assert together == alone
    assert len(set(alone)) == 8


def test_the_least_recently_used_engine_makes_room() -> None:
    with live(shelf(), max_engines=2) as server:

        def use(name: str) -> None:
            reply = server.post(COMPLETIONS, model=name, prompt="x", max_tokens=1)
            assert reply.status_code == 200, reply.text

        for name in (PYTHON, JAVA, PYTHON, CPP):
            use(name)
        assert {model["model"] for model in server.health()["loaded"]} == {PYTHON, CPP}
        assert [(e.name, e.closed) for e in server.shelf.engines] == [
            (PYTHON, False),
            (JAVA, True),
            (CPP, False),
        ]
        use(JAVA)
        assert server.shelf.engine(PYTHON).closed


def test_a_busy_engine_runs_empty_before_it_goes() -> None:
    with live(shelf(), max_engines=1) as server:
        server.post(COMPLETIONS, model=PYTHON, prompt="x", max_tokens=1)
        engine = server.shelf.engine(PYTHON)
        engine.delay = 0.005
        first = send(server, COMPLETIONS, {**LONG, "max_tokens": 50})
        until(lambda: len(engine.requests) == 2)
        reply = server.post(COMPLETIONS, model=JAVA, prompt="x", max_tokens=1)
        assert reply.json()["model"] == JAVA and engine.closed
        data = read_all(first)
        assert b" 200 " in data and b'"completion_tokens":50' in data


def test_a_new_version_of_a_model_is_served_at_once() -> None:
    with live(shelf()) as server:
        server.post(COMPLETIONS, model=PYTHON, prompt="x", max_tokens=1)
        old = server.shelf.engine(PYTHON)
        things = server.shelf.manifests
        things[PYTHON] = things[PYTHON].model_copy()  # another digest
        server.post(COMPLETIONS, model=PYTHON, prompt="x", max_tokens=1)
        assert old.closed and server.shelf.engine(PYTHON) is not old
        del things[PYTHON]
        assert server.post(COMPLETIONS, model=PYTHON, prompt="x").status_code == 404
        things[f"{BASE}-general"] = things[JAVA].model_copy(
            update={"name": f"{BASE}-general", "language": "general"}
        )
        reply = server.post(COMPLETIONS, model="auto", language="rust", prompt="x", max_tokens=1)
        assert reply.json()["model"] == f"{BASE}-general"


def test_a_full_queue_says_429() -> None:
    with live(shelf(), max_engines=1, max_batch=1, max_queue=2) as server:
        server.post(COMPLETIONS, model=PYTHON, prompt="x", max_tokens=1)
        engine = server.shelf.engine(PYTHON)
        engine.gate.clear()
        waiting = [send(server, COMPLETIONS, LONG) for _ in range(3)]
        until(lambda: server.health()["open"] == 3)
        reply = server.post(COMPLETIONS, **LONG)
        assert reply.status_code == 429 and reply.headers["retry-after"] == "1"
        assert reply.json()["error"]["type"] == "rate_limit_error"
        for connection in waiting:
            connection.close()
        engine.gate.set()
        until(lambda: idle(server))
        assert server.post(COMPLETIONS, **{**LONG, "max_tokens": 1}).status_code == 200


def test_bounds_of_the_server_reach_its_engines() -> None:
    weights, kv = needs()
    memory = 3 * weights + 5 * kv
    with live(shelf(), memory=memory, step_tokens=5) as server:
        for name, used in ((PYTHON, weights), (JAVA, 2 * weights - weights // 3)):
            reply = server.post(COMPLETIONS, model=name, prompt="x" * 12, max_tokens=1)
            assert reply.status_code == 200
            engine = server.shelf.engine(name)
            assert engine.steps == 3  # 12 tokens and 5 a step
            assert memory - used - kv < engine.kv_budget <= memory - used
        assert server.shelf.engine(PYTHON).kv_budget == engine.kv_budget  # they share it
    with pytest.raises(SettingsError, match="step_tokens 0"):
        ServerConfig(step_tokens=0)


def test_health(slow: Live) -> None:
    health = slow.health()
    engine = slow.shelf.engine(PYTHON)
    assert (health["status"], health["loading"], health["open"]) == ("ok", None, 0)
    assert health["loaded"] == [
        {
            "model": PYTHON,
            "resident_bytes": engine.resident_bytes,
            "active": 0,
            "unload_in_seconds": health["loaded"][0]["unload_in_seconds"],
            "draft": None,
            "draft_failure": None,
            "drafted": {},
        }
    ]
    assert 0 < health["loaded"][0]["unload_in_seconds"] <= 1800
    assert isinstance(engine, Engine) and health["uptime_seconds"] >= 0
