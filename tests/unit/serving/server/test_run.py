"""Start and stop: the port, signals, open streams, what is imported."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from subllm.errors import ServerError
from subllm.models.store.store import Store
from subllm.serving.server.config import ServerConfig
from subllm.serving.server.dialects.table import dialect_of
from subllm.serving.server.guard import Guard
from subllm.serving.server.loading import StoreLoader
from subllm.serving.server.run import bind, serve
from unit.cli.tiny_store import BASE as TINY
from unit.cli.tiny_store import build, greedy, write_checkpoint
from unit.serving.server.test_stream import COMPLETIONS, LONG, read_all, send
from unit.serving.server.tiny import PATIENCE, PYTHON, live, shelf, until

PROGRAM = """
import json, sys
sys.modules["torch"] = sys.modules["transformers"] = None  # importing them fails
from pathlib import Path
from subllm.serving.server.config import ServerConfig
from subllm.serving.server.loading import StoreLoader
from subllm.serving.server.run import serve
from subllm.models.store.store import Store

def ready(host, port):
    assert "jinja2" not in sys.modules  # nor anything else that only some requests need
    print(json.dumps([host, port]), flush=True)

loader = StoreLoader(Store(Path(sys.argv[1])))
serve(loader, ServerConfig(port=0), on_ready=ready, log_level="debug")
print("stopped")
"""


def start(store: Path) -> tuple[subprocess.Popen[str], httpx.Client]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(store)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    host, port = json.loads(process.stdout.readline())
    assert host == "127.0.0.1"
    return process, httpx.Client(base_url=f"http://{host}:{port}", timeout=PATIENCE)


def test_a_store_is_served_without_torch_until_sigterm(tmp_path: Path) -> None:
    # A context so long that the reply is not over before the signal is seen.
    store = build(tmp_path / "store", write_checkpoint(tmp_path / "checkpoint", context=8192))
    process, client = start(store.root)
    assert [m["id"] for m in client.get("/v1/models").json()["data"]] == [
        TINY,
        f"{TINY}-dense",
        f"{TINY}-java",
        f"{TINY}-python",
        "auto",
    ]
    body: dict[str, Any] = {"language": "java", "prompt": "abc", "max_tokens": 8}
    reply = client.post(COMPLETIONS, json=body).json()
    assert reply["model"] == f"{TINY}-java"
    assert reply["choices"][0]["text"] == greedy(store, tuple(b"abc"), 8)
    body |= {"max_tokens": 8000, "stream": True}
    with client.stream("POST", COMPLETIONS, json=body) as s:
        lines = (line for line in s.iter_lines() if line)
        assert "choices" in next(lines)
        process.send_signal(signal.SIGTERM)
        assert '"error"' in list(lines)[-1]
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output, errors) == (0, "stopped\n", "")


def test_sigint_with_an_idle_connection(tmp_path: Path) -> None:
    process, client = start(tmp_path)
    assert client.get("/health").json()["status"] == "ok"  # and the connection stays open
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output, errors) == (0, "stopped\n", "")


def test_a_taken_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            ServerError, match=rf"by py\S+ \(pid {os.getpid()}\); .*--port"
        ) as caught:
            serve(StoreLoader(Store(tmp_path)), ServerConfig(port=port))
        assert str(port) in str(caught.value)
    bind("127.0.0.1", port).close()  # free again


def test_addresses() -> None:
    for host in ("localhost", "127.0.0.1"):
        with bind(host, 0) as listener:
            assert listener.getsockname()[0] == "127.0.0.1"
    with pytest.raises(ServerError, match="--host"):
        bind("203.0.113.7", 0)
    with pytest.raises(ServerError, match="--host"):
        bind("no.such.host.invalid", 0)
    if os.getuid() != 0:
        with pytest.raises(ServerError, match="1023"):
            bind("127.0.0.1", 1)


def test_a_failing_on_ready_stops_the_server(tmp_path: Path) -> None:
    def fail(host: str, port: int) -> None:
        raise ServerError("no record")

    with pytest.raises(ServerError, match="no record"):
        serve(StoreLoader(Store(tmp_path)), ServerConfig(port=0), on_ready=fail)
    before = signal.getsignal(signal.SIGTERM)
    assert before is signal.SIG_DFL


def test_stopping_ends_streams_and_waiting_requests_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with live(shelf(max_batch=1)) as server:
        server.post(COMPLETIONS, model=PYTHON, prompt="x", max_tokens=1)
        engine = server.shelf.engine(PYTHON)
        engine.delay = 0.1
        body = {**LONG, "stream": True}
        with server.http.stream("POST", COMPLETIONS, json=body) as reply:
            lines = (line for line in reply.iter_lines() if line)
            next(lines)
            waiting = send(server, COMPLETIONS, {**LONG, "prompt": "other"})
            until(lambda: len(engine.requests) == 3)
            server.server.handle_exit(signal.SIGTERM, None)
            last = json.loads(list(lines)[-1].removeprefix("data: "))
            assert last["error"]["code"] == "unavailable"
            answer = read_all(waiting)
            assert answer.startswith(b"HTTP/1.1 503") and b"shutting down" in answer
            # The running one would have gone on for seconds.
            assert engine.steps < 201
        until(lambda: engine.closed)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_stopping_does_not_wait_for_a_step_or_a_load() -> None:
    with live(shelf()) as server:
        server.post(COMPLETIONS, model=PYTHON, prompt="x", max_tokens=1)
        engine = server.shelf.engine(PYTHON)
        engine.gate.clear()
        waiting = send(server, COMPLETIONS, LONG)
        until(lambda: len(engine.requests) == 2)
        server.server.handle_exit(signal.SIGTERM, None)
        assert read_all(waiting).startswith(b"HTTP/1.1 503")  # the step still hangs
        assert not engine.closed
        engine.gate.set()


def test_a_cancelled_request_is_no_error_of_the_application() -> None:
    async def hang(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    async def cancelled() -> None:
        guard = Guard(hang, ServerConfig(), dialect_of)
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/health",
            "headers": [(b"host", b"localhost")],
        }
        task = asyncio.ensure_future(guard(scope, asyncio.sleep, asyncio.sleep))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
        await task  # would raise

    asyncio.run(cancelled())
