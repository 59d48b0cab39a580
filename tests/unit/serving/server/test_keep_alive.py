"""Models that nobody uses are unloaded when their time is up, by a clock that stands still."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from subllm.errors import SettingsError
from subllm.models.store.manifest import ModelManifest
from subllm.models.text.tokenizer import Tokenizer
from subllm.serving.server.config import ServerConfig
from subllm.serving.server.worker import EngineWorker
from unit.serving.server.test_worker import Asked, Clock, generate, held_stream, worker_on
from unit.serving.server.tiny import CPP, JAVA, PATIENCE, PYTHON, Shelf, live, needs, shelf, until

MINUTES = 60.0


@contextmanager
def kept(keep_alive: float = 30 * MINUTES) -> Iterator[tuple[EngineWorker, Shelf, Clock]]:
    things, clock = shelf(), Clock()
    worker = worker_on(things, clock=clock, keep_alive=keep_alive)
    try:
        yield worker, things, clock
    finally:
        for engine in things.engines:
            engine.gate.set()
        worker.stop(PATIENCE)


def asked(worker: EngineWorker, number: int, model: str, keep_alive: float | None = None) -> Asked:
    one = generate(number, model, 0, 5, 1)  # in one turn
    one.job.keep_alive = keep_alive
    worker.submit(one.job)
    assert one.over.wait(PATIENCE)
    look(worker)
    return one


def names(worker: EngineWorker) -> set[str]:
    return {model.name for model in worker.loaded}


def look(worker: EngineWorker) -> None:
    """Have the worker take a turn: its clock is not that of its thread."""
    turned = worker._turns
    worker.unload("nobody")
    until(lambda: worker._turns > turned)


def test_who_is_idle_for_so_long_goes() -> None:
    with kept() as (worker, things, clock):
        asked(worker, 1, PYTHON)
        look(worker)
        clock.now += 20 * MINUTES
        asked(worker, 2, JAVA)
        look(worker)
        clock.now += 9.9 * MINUTES
        look(worker)
        assert names(worker) == {PYTHON, JAVA}
        left = {model.name: worker.seconds_left(model) for model in worker.loaded}
        assert left == pytest.approx({PYTHON: 6, JAVA: 20.1 * MINUTES})
        clock.now += 0.2 * MINUTES
        look(worker)
        assert names(worker) == {JAVA}
        assert things.engine(PYTHON).closed and not things.engine(JAVA).closed
        asked(worker, 3, JAVA)  # its time begins anew
        look(worker)
        clock.now += 29 * MINUTES
        look(worker)
        assert names(worker) == {JAVA}
        clock.now += 2 * MINUTES
        look(worker)
        assert names(worker) == set()
        assert asked(worker, 4, PYTHON).text  # it loads again


def test_a_request_says_how_long() -> None:
    with kept() as (worker, _, clock):
        asked(worker, 1, PYTHON, 5 * MINUTES)
        asked(worker, 2, JAVA, math.inf)
        look(worker)
        clock.now += 6 * MINUTES
        look(worker)
        assert names(worker) == {JAVA}
        clock.now += 1e6 * MINUTES
        asked(worker, 3, JAVA)  # says nothing: as before
        look(worker)
        clock.now += 1e6 * MINUTES
        look(worker)
        assert [worker.seconds_left(model) for model in worker.loaded] == [math.inf]
        asked(worker, 4, JAVA, 0.0)
        until(lambda: not worker.loaded)


def test_nobody_goes_who_is_used() -> None:
    with kept(0.0) as (worker, things, clock):
        stream = held_stream(worker, things)
        engine = things.engine(PYTHON)
        clock.now += 99 * MINUTES
        worker.unload(PYTHON)
        engine.gate.set()
        assert stream.over.wait(PATIENCE)
        assert len(stream.text) > 0 and len(things.engines) == 1
        until(lambda: not worker.loaded and engine.closed)


def test_the_worker_wakes_up_for_it() -> None:
    things = shelf()
    worker = worker_on(things, keep_alive=0.05)
    try:
        asked(worker, 1, PYTHON)
        until(lambda: not worker.loaded and things.engine(PYTHON).closed)
    finally:
        worker.stop(PATIENCE)


def test_over_http() -> None:
    with live(shelf(), keep_alive=600.0) as server:
        body = {"model": PYTHON, "prompt": "x", "max_tokens": 2}

        def health() -> list[dict[str, object]]:
            loaded: list[dict[str, object]] = server.health()["loaded"]
            return loaded

        def expiry() -> float:
            (model,) = server.http.get("/api/ps").json()["models"]
            at = datetime.fromisoformat(model["expires_at"].replace("Z", "+00:00"))
            return (at - datetime.now(UTC)).total_seconds()

        assert server.post("/v1/completions", **body).status_code == 200
        until(lambda: 590 < expiry() < 600)
        (model,) = health()
        assert 590 < float(str(model["unload_in_seconds"])) <= 600
        assert server.post("/v1/completions", **body, keep_alive="-1m").status_code == 200
        until(lambda: health()[0]["unload_in_seconds"] is None)
        assert expiry() > 1e9
        ollama = {"model": PYTHON, "prompt": "x", "raw": True, "options": {"num_predict": 2}}
        assert server.post("/api/generate", **ollama, stream=False, keep_alive=0).status_code == 200
        until(lambda: not health())
        assert server.post("/api/generate", model=PYTHON, stream=False).status_code == 200
        (model,) = health()
        reply = server.post("/api/chat", model=PYTHON, messages=[], keep_alive="0").json()
        assert (reply["done_reason"], reply["message"]["content"]) == ("unload", "")
        until(lambda: not health())
        loads = len(server.shelf.engines)
        server.post("/api/generate", model=PYTHON, keep_alive=0)
        assert len(server.shelf.engines) == loads  # nothing is loaded to be unloaded


def test_tokenizers_go_with_the_last_model() -> None:
    things, read = shelf(), []
    original = things.tokenizer_of

    def counted(model: ModelManifest) -> Tokenizer:
        read.append(model.name)
        return original(model)

    things.tokenizer_of = counted  # type: ignore[method-assign]
    with live(things, max_engines=1) as server:
        # Another takes the place of the first; then it goes, and is loaded again.
        for model, stays, loaded in (
            (PYTHON, 600, {PYTHON}), (JAVA, 600, {JAVA}), (JAVA, 0, set()), (JAVA, 600, {JAVA}),
        ):  # fmt: skip
            body = {"model": model, "prompt": "x", "max_tokens": 2, "keep_alive": stays}
            assert server.post("/v1/completions", **body).status_code == 200
            until(lambda: {m["model"] for m in server.health()["loaded"]} == loaded)  # noqa: B023
        assert read == [PYTHON, JAVA]


def test_what_is_preloaded_stays() -> None:
    weights, kv = needs()
    things = shelf()
    with live(things, preload=(PYTHON,), keep_alive=0.0, memory=2 * weights + kv) as server:
        until(lambda: [m["model"] for m in server.health()["loaded"]] == [PYTHON])
        body = {"prompt": "x", "max_tokens": 1}
        for name in (JAVA, CPP, PYTHON):
            assert server.post("/v1/completions", model=name, **body).status_code == 200
        until(lambda: [m["model"] for m in server.health()["loaded"]] == [PYTHON])
        assert [engine.name for engine in things.engines] == [PYTHON, JAVA, CPP]
        assert not things.engine(PYTHON).closed


def test_what_has_no_room_beside_what_is_preloaded_is_told() -> None:
    weights, kv = needs()
    with live(shelf(), preload=(PYTHON,), memory=weights + kv + 1000) as server:
        until(lambda: bool(server.health()["loaded"]))
        reply = server.post("/v1/completions", model=JAVA, prompt="x", max_tokens=1)
        assert reply.status_code == 503
        assert "of preloaded models" in reply.json()["error"]["message"]
    with live(shelf(), preload=(PYTHON,), max_engines=1) as server:
        until(lambda: bool(server.health()["loaded"]))
        reply = server.post("/v1/completions", model=JAVA, prompt="x", max_tokens=1)
        assert reply.status_code == 503 and "max_loaded_models 1" in reply.text
    with pytest.raises(SettingsError, match="2 models are to be preloaded and 1 may be"):
        ServerConfig(preload=(PYTHON, JAVA), max_engines=1)
