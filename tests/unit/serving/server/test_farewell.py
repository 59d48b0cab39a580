"""A server that is told to stop says so in the words of every dialect."""

from __future__ import annotations

import json
import signal
import socket
from typing import Any

from unit.serving.server.connections import LONG, body_of, read_all, send
from unit.serving.server.tiny import PYTHON, live, shelf

HI = [{"role": "user", "content": "hi"}]
# What a stream of each route ends with then, before its JSON.
STREAMS: dict[str, tuple[dict[str, Any], str]] = {
    "/v1/completions": ({"prompt": "x", "ignore_eos": True}, "data: "),
    "/v1/chat/completions": ({"messages": HI, "ignore_eos": True}, "data: "),
    "/v1/responses": ({"input": "hi"}, "event: error\ndata: "),
    "/v1/messages": ({"messages": HI, "max_tokens": 200}, "event: error\ndata: "),
    "/v1/fim/completions": ({"prompt": "x", "suffix": "y"}, "data: "),
    "/infill": ({"input_prefix": "x", "input_suffix": "y"}, "data: "),
    "/completion": ({"prompt": "x"}, "data: "),
    "/api/generate": ({"prompt": "x"}, ""),
    "/api/chat": ({"messages": HI}, ""),
}


def _has_begun(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(4096)
    return data


def test_every_stream_ends_with_an_error_of_its_dialect() -> None:
    with live(shelf(max_batch=len(STREAMS))) as server:
        server.post("/v1/completions", **{**LONG, "max_tokens": 1})
        engine = server.shelf.engine(PYTHON)
        engine.delay = 0.1  # so that none ends before all have begun
        asked = {
            path: send(server, path, {"model": PYTHON, "stream": True, **body})
            for path, (body, _) in STREAMS.items()
        }
        begun = {path: _has_begun(connection) for path, connection in asked.items()}
        server.server.handle_exit(signal.SIGTERM, None)
        for path, (_, framing) in STREAMS.items():
            text = body_of(begun[path] + read_all(asked[path])).decode()
            last = [part for part in text.split("\n\n" if framing else "\n") if part][-1]
            assert last.startswith(framing), (path, last)
            said = json.loads(last.removeprefix(framing))
            error = said if said.get("object") == "error" else said["error"]
            message = error if isinstance(error, str) else error["message"]
            assert "shutting down" in message, (path, last)
            assert framing != "event: error\ndata: " or said["type"] == "error"
    with live(shelf()) as server:  # what one heard, another in the process has not
        data = read_all(send(server, "/v1/completions", {**LONG, "max_tokens": 1, "stream": True}))
        assert body_of(data).endswith(b"data: [DONE]\n\n")
