"""A client that leaves a fast stream, over a real connection."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from subllm.serving.server.answer import Batches, Stream
from subllm.serving.server.framing import Events
from subllm.serving.server.run import bind, uvicorn_config
from unit.serving.server.tiny import PATIENCE

AT_ONCE = 100


def test_nothing_is_said_of_a_client_that_leaves_a_fast_stream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It resets the connection, and before the server has seen that, a lot comes to be written."""
    read, ended = threading.Event(), threading.Event()

    async def batches() -> Batches:
        try:
            yield [{"n": 0}]
            await asyncio.to_thread(read.wait, PATIENCE)
            client.close()
            for number in range(AT_ONCE):
                await asyncio.sleep(0)
                yield [{"n": number}]
        finally:
            ended.set()

    async def stream(request: Request) -> Response:
        events = Events(lambda error: {})
        return events.response(Stream(batches(), events), {}, PATIENCE)

    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn_config(Starlette(routes=[Route("/", stream)])))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    client = socket.create_connection(listener.getsockname(), timeout=PATIENCE)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    seen = b""
    while b'data: {"n":0}\n\n' not in seen:
        seen += client.recv(4096)
    read.set()
    assert ended.wait(PATIENCE)
    server.should_exit = True
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not caplog.records
