"""What the fake servers share: an HTTP server on a free port of this machine, and holding answers.

class FakeThing(FakeServer):
    def __init__(self) -> None:
        super().__init__(_Handler)

class _Handler(FakeHandler[FakeThing]):
    def answer(self) -> None:
        self.reply(200, {"Content-Type": "text/plain"}, self.fake.something)

with FakeThing() as thing:
    ask(thing.origin)  # http://127.0.0.1:34567
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Generic, Self, TypeVar

Fake = TypeVar("Fake", bound="FakeServer")


class FakeServer:
    """Serves while the context lasts."""

    def __init__(self, handler: type[FakeHandler[Any]]) -> None:
        self._released = threading.Event()
        self._holding = threading.Event()
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (handler,), {"fake": self})
        )
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = self._server.server_port
        self.origin = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def hold(self) -> None:
        """For an answer under way: wait until `release`."""
        self._holding.set()
        self._released.wait()

    def wait_holding(self, timeout: float = 300.0) -> None:
        """Returns when an answer is held."""
        assert self._holding.wait(timeout), "no answer was held"

    def release(self) -> None:
        """Let held answers go on."""
        self._released.set()


class FakeHandler(BaseHTTPRequestHandler, Generic[Fake]):
    """Quiet, also about clients that leave early; a subclass has `answer`."""

    fake: Fake
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def handle(self) -> None:
        try:
            super().handle()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        try:
            self.answer()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def answer(self) -> None:
        raise NotImplementedError

    def reply(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """A whole answer; HEAD gets no body."""
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
