"""Talks to a running server over loopback.

`http.client` and not httpx: the first word of `subllm complete` should come at once, and
httpx alone takes 0.2 s to import.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from subllm.errors import ContextLengthError, EngineBusyError, ServerError, SubllmError, UsageError

_UNIX = "unix:"
CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 600.0


@dataclass(frozen=True)
class Stream:
    """An answer that comes in pieces. `route` says why its model was chosen, `draft` which
    model drafts for it; closing `events` early (Ctrl-C) stops the work."""

    route: str
    events: Generator[dict[str, Any], None, None]
    draft: str | None = None


class ServerClient:
    """One server, at an http URL or `unix:PATH`; every request is a connection of its own."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        parts = urlsplit("" if url.startswith(_UNIX) else url)
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or 80
        self._path = url.removeprefix(_UNIX) if url.startswith(_UNIX) else None
        self._url = url
        # As bytes: `http.client` writes characters as Latin-1 and refuses others.
        self._headers = {"Authorization": f"Bearer {api_key}".encode()} if api_key else {}

    def healthy(self) -> bool:
        """Whether the server answers `/health`."""
        try:
            self.get("/health", seconds=CONNECT_SECONDS)
        except SubllmError:
            return False
        return True

    def get(self, path: str, *, seconds: float = ANSWER_SECONDS) -> Any:
        """The JSON document at `path`. Raises ServerError for a server that cannot be reached
        or ends while it answers, else as `_raise_for` says."""
        connection, response = self._request("GET", path, None, seconds)
        with closing(connection):
            try:
                data = response.read()
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from error
        return self._decode(data)

    def stream(self, path: str, body: dict[str, Any]) -> Stream:
        """Server-sent events of a request with `stream: true`. They end with `[DONE]`: where
        the connection ends before, ServerError is raised after the events that came."""
        connection, response = self._request("POST", path, body, ANSWER_SECONDS)
        return Stream(
            response.getheader("x-subllm-route", ""),
            self._events(connection, response),
            response.getheader("x-subllm-draft"),
        )

    def close(self) -> None:
        """Nothing stays open between requests."""

    def _request(
        self, method: str, path: str, body: dict[str, Any] | None, seconds: float
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = _Connection(self._host, self._port, self._path, seconds)
        headers: dict[str, str | bytes] = dict(self._headers)
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body=data, headers=headers)
            response = connection.getresponse()
            if response.status != 200:
                _raise_for(response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error) from error
        except SubllmError:
            connection.close()
            raise
        return connection, response

    def _events(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> Generator[dict[str, Any], None, None]:
        with closing(connection):
            try:
                for line in response:
                    if not line.endswith(b"\n"):
                        break  # cut
                    if not line.startswith(b"data:"):
                        continue
                    data = line[5:].strip()
                    if data == b"[DONE]":
                        return
                    event = self._decode(data)
                    if "error" in event:
                        raise ServerError(event["error"].get("message", "the server failed"))
                    yield event
            except (OSError, http.client.HTTPException) as error:
                raise self._lost(_reason(error)) from error
        # `http.client` ends a reply that was cut without a word, chunked or not.
        raise self._lost("the connection was closed")

    def _decode(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except ValueError as error:
            raise ServerError(
                f"what answers at {self._url} is not a subllm server; choose another --port"
            ) from error

    def _unreachable(self, error: Exception) -> ServerError:
        return ServerError(
            f"the server at {self._url} is not reachable ({_reason(error)}); see 'subllm ps'"
        )

    def _lost(self, reason: str) -> ServerError:
        return ServerError(
            f"the server at {self._url} was lost before the answer was complete ({reason}); "
            "see 'subllm ps' and ask again"
        )


class _Connection(http.client.HTTPConnection):
    """Over TCP, or a Unix socket at `path`."""

    def __init__(self, host: str, port: int, path: str | None, seconds: float) -> None:
        super().__init__(host, port, timeout=seconds)
        self._path = path

    def connect(self) -> None:
        if self._path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _raise_for(status: int, body: bytes) -> None:
    """An OpenAI error object as the exception that the same mistake raises in process."""
    code = None
    try:
        error = json.loads(body)["error"]
        message, code = error["message"], error.get("code")
    except (ValueError, KeyError, TypeError):
        message = f"the server answered with status {status}"
    if status == 401:
        raise ServerError(f"{message} (set SUBLLM_API_KEY to the server's key)")
    if status in (429, 503):
        raise EngineBusyError(message)
    if code == "context_length_exceeded":
        raise ContextLengthError(message)
    if 400 <= status < 500:
        raise UsageError(message)
    raise ServerError(message)
