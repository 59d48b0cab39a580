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
from subllm.errors import IncompleteError, ServerError

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
        pytest.raises(IncompleteError, match="before the answer was complete") as caught,
    ):
        ask(client, COMPLETIONS, {"prompt": "x"}, pieces.append)
    assert "".join(pieces) == text
    assert caught.value.exit_code == 7
    assert "\n" not in str(caught.value)
    came = f"{len(text)} characters" if text else "nothing"
    assert str(caught.value).endswith(f"({came} of the answer came)")
    partial = caught.value.partial
    assert (partial["text"], partial["complete"]) == (text, False)
    assert "before the answer was complete" in partial["error"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (PLAIN + EVENT + b'data: {"error":{"message":"the server is shutting down"}}\n\n', "shutt"),
        (PLAIN + EVENT + DONE, "without a word of why"),
    ],
)
@pytest.mark.parametrize("command", ["complete", "chat"])
def test_json_says_what_came_of_an_answer_without_an_end(
    command: str,
    answer: bytes,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    subllm: Callable[..., Ran],
) -> None:
    if command == "chat":
        answer = answer.replace(b'"text":"ab"', b'"delta":{"content":"ab"}')
    with peer(answer) as client:
        monkeypatch.setattr(ask_module, "open_client", lambda *_, **__: nullcontext(client))
        ran = subllm(command, "x", "--json")
    assert ran.status == 7
    assert (ran.json["text"], ran.json["complete"], ran.json["finish_reason"]) == ("ab", False, "")
    assert said in ran.json["error"] and said in ran.err
    assert "2 characters" in ran.err and ran.err.count("\n") == 1


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
    assert (ran.status, ran.out) == (7, "ab\n")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("head", [PLAIN, CHUNKED])
def test_a_stream_that_is_whole(head: bytes) -> None:
    body = EVENT + b": keep-alive\n\n" + LAST + DONE
    sent = chunk(body[:40]) + chunk(body[40:]) + chunk(b"") if head is CHUNKED else body
    with peer(head + sent) as client:
        answer = ask(client, COMPLETIONS, {"prompt": "x"}, lambda text: None)
    assert (answer.text, answer.finish_reason) == ("abc", "length")
    assert answer.document()["complete"] and answer.document()["error"] is None


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
