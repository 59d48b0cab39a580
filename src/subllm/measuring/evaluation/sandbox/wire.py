"""Messages between the harness, a run's keeper and the process inside: JSON and bytes.

A message is a length (8 bytes, big-endian), a JSON object of that length, and the blobs
whose sizes the object lists under "sizes". Both ends are ours; nothing that a sandboxed
program writes is read as a message.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

RUN, DONE = b"r", b"d"  # all that the harness says to the launcher

_LENGTH = struct.Struct(">Q")


class Ended(Exception):
    """The other end closed the connection before a whole message had come."""


def send(connection: socket.socket, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
    """Send one message; blocks until the other end has taken it."""
    text = json.dumps({**header, "sizes": [len(blob) for blob in blobs]}).encode()
    connection.sendall(b"".join((_LENGTH.pack(len(text)), text, *blobs)))


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[bytes]]:
    """Receive one message; raises Ended when the other end has gone."""
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    header: dict[str, Any] = json.loads(_exactly(connection, length))
    return header, [_exactly(connection, size) for size in header.pop("sizes")]


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = connection.recv_into(view)
        if count == 0:
            raise Ended
        view = view[count:]
    return bytes(data)
