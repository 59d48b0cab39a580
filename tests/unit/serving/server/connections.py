"""Requests on raw sockets, whose replies are read byte by byte or not at all."""

from __future__ import annotations

import json
import socket
from typing import Any

from unit.serving.server.tiny import PATIENCE, PYTHON, Live

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
LONG: dict[str, Any] = {"model": PYTHON, "prompt": "x", "max_tokens": 200, "ignore_eos": True}


def send(live: Live, path: str, body: dict[str, Any]) -> socket.socket:
    """A request on a connection of its own; nothing is read."""
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    connection = socket.create_connection((live.host, live.port), timeout=PATIENCE)
    connection.sendall(head.encode() + data)
    return connection


def read_all(connection: socket.socket) -> bytes:
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


def body_of(response: bytes) -> bytes:
    """Undo the chunked encoding."""
    rest, body = response.partition(b"\r\n\r\n")[2], b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if int(size, 16) == 0:
            return body
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]


def idle(live: Live) -> bool:
    return all(model["active"] == 0 for model in live.health()["loaded"])
