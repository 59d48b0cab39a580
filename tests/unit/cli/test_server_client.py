"""The client of a server that ends in the middle of what it says: a peer on a real socket."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pytest

from subllm.cli import ask as ask_module
from subllm.cli.ask import COMPLETIONS, ask
from subllm.cli.server_client import ServerClient
from subllm.errors import ServerError

from .samples import Ran

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"model":"m","choices":[{"text":"ab","finish_reason":null}]}\n\n'
LAST = b'data: {"model":"m","choices":[{"text":"c","finish_reason":"length"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@contextmanager
def peer(answer: bytes) -> Iterator[ServerClient]:
    """Reads one request, sends `answer` and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection = listener.accept()[0]
            with connection:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += connection.recv(65536)
                head, _, body = request.partition(b"\r\n\r\n")
                length = [
                    line for line in head.split(b"\r\n") if line.startswith(b"Content-Length")
                ]
                while length and len(body) < int(length[0].split(b":")[1]):
                    body += connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield ServerClient(f"http://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            thread.join(10)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (PLAIN, ""),
        (PLAIN + EVENT, "ab"),
        (PLAIN + EVENT + EVENT[:20], "ab"),
        (PLAIN + EVENT + LAST, "abc"),  # all text, but not the word that this is all
        (PLAIN + EVENT + b"data: [DONE", "ab"),
        (CHUNKED, ""),
        (CHUNKED + chunk(EVENT), "ab"),  # between two chunks
        (CHUNKED + chunk(EVENT) + chunk(EVENT)[:30], "ab"),  # in one
        (CHUNKED + chunk(EVENT) + b"4", "ab"),  # in the size of one
        (CHUNKED + chunk(EVENT[:20]), ""),
        (CHUNKED + chunk(EVENT) + chunk(b""), "ab"),  # a proper end of an unfinished stream
    ],
    ids=str,
)
def test_a_stream_that_is_cut_is_an_error_after_its_text(answer: bytes, text: str) -> None:
    pieces: list[str] = []
    with (
        peer(answer) as client,
        pytest.raises(ServerError, match="before the answer was complete") as caught,
    ):
        ask(client, COMPLETIONS, {"prompt": "x"}, pieces.append)
    assert "".join(pieces) == text
    assert caught.value.exit_code == 8
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "event"),
    [
        ("complete", EVENT),
        ("chat", EVENT.replace(b'"text":"ab"', b'"delta":{"content":"ab"}')),
    ],
    ids=["complete", "chat"],
)
def test_on_a_terminal_the_error_has_a_line_of_its_own(
    command: str, event: bytes, monkeypatch: pytest.MonkeyPatch, subllm: Callable[..., Ran]
) -> None:
    with peer(PLAIN + event) as client:
        monkeypatch.setattr(ask_module, "open_client", lambda *_, **__: nullcontext(client))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        ran = subllm(command, "x")
    assert (ran.status, ran.out) == (8, "ab\n")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("head", [PLAIN, CHUNKED])
def test_a_stream_that_is_whole(head: bytes) -> None:
    body = EVENT + b": keep-alive\n\n" + LAST + DONE
    sent = chunk(body[:40]) + chunk(body[40:]) + chunk(b"") if head is CHUNKED else body
    with peer(head + sent) as client:
        answer = ask(client, COMPLETIONS, {"prompt": "x"}, lambda text: None)
    assert (answer.text, answer.finish_reason) == ("abc", "length")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"a": ',
        CHUNKED + chunk(b'{"a": 1}'),
        CHUNKED + chunk(b'{"a": 1}')[:6],
        b'HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\n{"error": ',
    ],
    ids=str,
)
def test_a_document_that_is_cut(answer: bytes) -> None:
    with peer(answer) as client, pytest.raises(ServerError, match="not reachable"):
        client.get("/health")
