"""A client that leaves a stream: a fast one, over a real connection, or before it has begun."""

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
from starlette.types import Message

from subllm.serving.server.answer import Batches, Stream
from subllm.serving.server.framing import Events, Framing, Lines
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


@pytest.mark.parametrize("framing", [Events(lambda error: {}), Lines(lambda error: {})])
def test_the_work_ends_for_a_client_that_leaves_before_the_stream_begins(framing: Framing) -> None:
    ended: list[bool] = []

    async def batches() -> Batches:
        try:
            yield [{"n": 0}]
        finally:
            ended.append(True)

    async def receive() -> Message:
        await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        await asyncio.sleep(PATIENCE)  # the connection takes nothing

    async def leave() -> None:
        response = framing.response(Stream(batches(), framing), {}, PATIENCE)
        await response({"type": "http", "method": "POST"}, receive, send)

    asyncio.run(leave())
    assert ended == [True]


def test_signs_of_life_of_named_events_may_be_events() -> None:
    async def batches() -> Batches:
        yield [{"type": "begun"}]
        await gone.wait()
        yield []

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))
        if len(sent) == 4:
            gone.set()

    async def wait() -> None:
        framing = Events(lambda error: {}, named=True, waiting={"type": "ping"})
        response = framing.response(Stream(batches(), framing), {}, 0.01)
        await response({"type": "http", "method": "POST"}, receive, send)

    gone, sent = asyncio.Event(), list[bytes]()
    asyncio.run(wait())
    ping = b'event: ping\ndata: {"type":"ping"}\n\n'
    assert sent[1:4] == [b'event: begun\ndata: {"type":"begun"}\n\n', ping, ping]
