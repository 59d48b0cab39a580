"""Engines that break, logits that are not finite, an engine thread that ends."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from subllm.errors import DeviceError
from unit.serving.server.connections import COMPLETIONS, LONG, body_of, idle, read_all, send
from unit.serving.server.tiny import CPP, PYTHON, SEP, Live, until


def test_an_engine_that_breaks_is_reloaded(slow: Live) -> None:
    def post(**changes: Any) -> Any:
        return slow.post(COMPLETIONS, **{**LONG, "max_tokens": 3, **changes})

    broken = slow.shelf.engine(PYTHON)
    good = post().json()["choices"][0]["text"]
    broken.fail = RuntimeError("secret detail")
    reply = post()
    error = reply.json()["error"]
    assert reply.status_code == 500
    assert (error["type"], error["code"], error["param"]) == ("server_error", "engine_error", None)
    assert "secret" not in error["message"]
    assert broken.closed
    assert post().json()["choices"][0]["text"] == good
    assert slow.shelf.engine(PYTHON) is not broken


def test_a_card_without_memory_is_said_and_other_models_go_on(
    slow: Live, caplog: pytest.LogCaptureFixture
) -> None:
    short = {**LONG, "max_tokens": 2}
    other = slow.post(COMPLETIONS, **{**short, "model": CPP}).json()["choices"]
    broken, fine = slow.shelf.engine(PYTHON), slow.shelf.engine(CPP)
    broken.fail = DeviceError("there is no memory left on cuda:0 for this step; choose cpu")
    error = slow.post(COMPLETIONS, **short).json()["error"]
    assert error["message"] == (
        f"{PYTHON} was unloaded: there is no memory left on cuda:0 for this step; choose cpu"
    )
    assert error["code"] == "engine_error"
    assert "Traceback" not in caplog.text
    assert slow.post(COMPLETIONS, **{**short, "model": CPP}).json()["choices"] == other
    assert slow.shelf.engine(CPP) is fine
    assert slow.post(COMPLETIONS, **short).status_code == 200


def test_an_engine_that_breaks_during_a_stream(slow: Live) -> None:
    engine = slow.shelf.engine(PYTHON)
    with slow.http.stream("POST", COMPLETIONS, json={**LONG, "stream": True}) as reply:
        lines = (line for line in reply.iter_lines() if line)
        assert "choices" in next(lines)
        engine.fail = RuntimeError("secret detail")
        last = list(lines)[-1]
    error = json.loads(last.removeprefix("data: "))["error"]
    assert error["code"] == "engine_error" and "secret" not in last


def test_logits_that_are_not_finite_fail_one_request_alone(patient: Live) -> None:
    engine = patient.shelf.engine(PYTHON)
    weights = engine._engine._backend._model.weights
    with torch.inference_mode():
        weights.embedding[SEP] = float("nan")
    engine._engine._scheduler._max_batch = 3
    good: dict[str, Any] = {**LONG, "max_tokens": 40}
    want = patient.post(COMPLETIONS, **good).json()["choices"]
    running = send(patient, COMPLETIONS, good)
    count = len(engine.requests)
    until(lambda: len(engine.requests) > count)
    bad: dict[str, Any] = {**LONG, "prompt": [97, SEP]}
    for stream in (False, True):  # a stream, too, has not begun yet
        reply = patient.post(COMPLETIONS, **{**bad, "stream": stream})
        assert reply.status_code == 500
        error = reply.json()["error"]
        assert (error["type"], error["code"]) == ("server_error", "engine_error")
        assert error["message"].startswith("the model gave logits that are not finite")
    head, _, body = read_all(running).partition(b"\r\n\r\n")
    assert b" 200 " in head and json.loads(body)["choices"] == want
    assert not engine.closed and idle(patient)
    assert patient.shelf.engine(PYTHON) is engine


def test_an_engine_thread_that_ends_is_said_and_nobody_hangs(
    slow: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = slow.shelf.engine(PYTHON)
    engine.gate.clear()
    running = send(slow, COMPLETIONS, {**LONG, "stream": True})
    until(lambda: len(engine.requests) >= 1)
    queued = send(slow, COMPLETIONS, LONG)
    until(lambda: slow.worker.open == 2)

    def fail() -> None:
        raise SystemError("secret detail")

    monkeypatch.setattr(slow.worker, "_drop_cancelled", fail)
    engine.gate.set()
    lines = body_of(read_all(running)).decode().split("\n\n")
    assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "unavailable"
    assert read_all(queued).startswith(b"HTTP/1.1 503")
    for stream in (False, True):  # and those that come later
        reply = slow.post(COMPLETIONS, **{**LONG, "stream": stream})
        assert reply.status_code == 503
        error = reply.json()["error"]
        assert (error["type"], error["code"]) == ("server_error", "unavailable")
        assert "start it again" in error["message"]
        assert "secret" not in reply.text
    health = slow.http.get("/health")
    assert health.status_code == 503
    assert health.json()["status"] == "failed"
    assert "start it again" in health.json()["reason"]
    assert (health.json()["open"], health.json()["loaded"]) == (0, [])
    assert "secret" not in health.text
    assert engine.closed
    assert "secret detail" in caplog.text  # the log has it
    assert slow.http.get("/v1/models").status_code == 200


def test_an_engine_that_breaks_where_nothing_should_is_unloaded_alone(
    slow: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In being asked for its size, and in dropping a request."""
    for method in ("resident_bytes", "abort"):
        slow.post(COMPLETIONS, **{**LONG, "max_tokens": 1})
        engine = slow.shelf.engine(PYTHON)
        engine.delay = 0.02
        connection = send(slow, COMPLETIONS, {**LONG, "stream": True})
        assert b"data: {" in connection.recv(65536) + connection.recv(65536)
        monkeypatch.setattr(engine, "broken", method)
        connection.close()
        until(lambda engine=engine: engine.closed)
        assert slow.post(COMPLETIONS, **{**LONG, "max_tokens": 1}).status_code == 200
        assert slow.shelf.engine(PYTHON) is not engine


def test_a_model_that_cannot_be_loaded(slow: Live) -> None:
    def fail(name: str) -> None:
        raise MemoryError("secret detail")

    slow.shelf.loading = fail
    for stream in (False, True):
        reply = slow.post(COMPLETIONS, **{**LONG, "model": CPP, "stream": stream})
        assert reply.status_code == 500 and "secret" not in reply.text
        assert CPP in reply.json()["error"]["message"]
    slow.shelf.loading = lambda name: None
    assert slow.post(COMPLETIONS, **{**LONG, "model": CPP, "max_tokens": 1}).status_code == 200
