"""Who may talk to the server: Host header, origin, API key, content type, body size.

A page in a browser can reach a loopback port. It cannot forge the Host header (so
DNS rebinding fails), cannot send JSON across origins without a preflight, and cannot read
replies without a CORS header; both are for origins that the settings allow alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import secrets
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from subllm.serving.server.config import ServerConfig, is_loopback
from subllm.serving.server.dialect import Dialect
from subllm.serving.server.errors import ApiError, api_error
from subllm.serving.server.page import files as page_files

# The page asks for the key itself; what it shows needs one.
OPEN_PATHS = frozenset({"/health", *page_files.FILES})
_CORS: dict[str, Any] = {
    "allow_methods": ("GET", "POST", "DELETE"),
    "allow_headers": (
        "Authorization",
        "Content-Type",
        "X-Api-Key",
        "x-subllm-language",
        "x-subllm-timeout-ms",
    ),
    "expose_headers": ("x-subllm-route", "x-subllm-draft", "Retry-After"),
}
_DRAIN = 8  # times the limit: how much of a body that is too large is read, then dropped


class Guard:
    """ASGI middleware: checks, then hands the buffered body on."""

    def __init__(
        self, app: ASGIApp, config: ServerConfig, dialect_of: Callable[[str], Dialect]
    ) -> None:
        self._app = app
        self._dialect_of = dialect_of
        self._keys = _encodings(config.api_key)
        self._limit = config.limits.body_bytes
        self._any_address = not is_loopback(config.host)
        own = () if config.host in ("0.0.0.0", "::") else (config.host,)  # noqa: S104
        self._hosts = frozenset(
            host.strip("[]").lower().rstrip(".") for host in (*config.allowed_hosts, *own)
        )
        self._origins = tuple(re.compile(pattern_of(origin)) for origin in config.allowed_origins)
        # Which origin may is asked here: to others not even a refusal says more than before.
        self._shared = CORSMiddleware(self._answer, allow_origin_regex=".*", **_CORS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin", "").lower()
        if (
            origin
            and self._knows_host(headers)
            and any(pattern.fullmatch(origin) for pattern in self._origins)
        ):
            await self._shared(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            headers = Headers(scope=scope)
            self._check_host(headers)
            dialect = self._dialect_of(scope["path"])
            if scope["path"] not in OPEN_PATHS:
                self._check_key(headers)
            if scope["method"] in ("POST", "PUT", "PATCH"):
                scope = _json_scope(scope, headers, dialect)
                receive = await self._buffered(headers, receive)
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            return  # the server stops and this client did not read to the end
        except Exception as error:
            wire = api_error(error)
            if not started:
                shape = self._dialect_of(scope["path"]).error
                await wire.response(shape)(scope, receive, send)

    def _knows_host(self, headers: Headers) -> bool:
        hosts = headers.getlist("host")
        name = host_name(hosts[0]) if len(hosts) == 1 else None
        return name is not None and (
            is_loopback(name)
            or name.endswith(".localhost")
            or name in self._hosts
            # Rebinding needs a name: an address says where the browser really connects.
            or (self._any_address and _is_address(name))
        )

    def _check_host(self, headers: Headers) -> None:
        if not self._knows_host(headers):
            raise ApiError(
                403,
                "this Host header is not answered; use localhost, or start the server with "
                "--allowed-hosts NAME (or set SUBLLM_ALLOWED_HOSTS)",
                kind="permission_error",
                code="host_not_allowed",
            )

    def _check_key(self, headers: Headers) -> None:
        if not self._keys:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if "x-api-key" in headers:
            scheme, given = "bearer", headers["x-api-key"]
        # Header values come as Latin-1 characters for bytes.
        sent = given.strip().encode("latin-1")
        equal = [secrets.compare_digest(sent, key) for key in self._keys]
        if scheme.lower() != "bearer" or not any(equal):
            raise ApiError(
                401,
                "missing or wrong API key; send 'Authorization: Bearer KEY' or 'X-Api-Key: KEY'",
                kind="authentication_error",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _buffered(self, headers: Headers, receive: Receive) -> Receive:
        """Read the body up to the limit; what follows (a disconnect) stays with `receive`."""
        declared = headers.get("content-length", "0")
        size, more = 0, True
        fits = not declared.isdigit() or int(declared) <= self._limit
        body = bytearray()
        while more and size <= _DRAIN * self._limit:
            message = await receive()
            more = message["type"] != "http.disconnect" and message.get("more_body", False)
            piece = message.get("body", b"")
            size += len(piece)
            fits = fits and size <= self._limit
            # The rest is read all the same: closing on unread data would reset the
            # connection before the client has seen the answer.
            if fits:
                body += piece
        if not fits:
            raise self._too_large()
        pending: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        return replay

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"the body is larger than {self._limit} bytes; send a shorter prompt",
            code="body_too_large",
            headers={"Connection": "close"},
        )


def _encodings(key: str | None) -> tuple[bytes, ...]:
    """The bytes that clients send for a key: UTF-8, or Latin-1 as HTTP once had it."""
    if key is None:
        return ()
    found = [key.strip().encode()]
    with contextlib.suppress(UnicodeEncodeError):
        found.append(key.strip().encode("latin-1"))
    return tuple(dict.fromkeys(found))


def pattern_of(origin: str) -> str:
    """Of an origin in which `*` stands for any characters but `/`."""
    return "[^/]*".join(re.escape(part) for part in origin.lower().rstrip("/").split("*"))


def _json_scope(scope: Scope, headers: Headers, dialect: Dialect) -> Scope:
    """The scope of a request with a JSON body. Where a dialect takes bodies of any type, one
    that names another counts as JSON, unless a page has sent it: a page can do that without
    a preflight, but not without the header Origin."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return scope
    if not dialect.any_type or "origin" in headers or "sec-fetch-site" in headers:
        raise ApiError(
            415, "send the body as 'Content-Type: application/json'", code="content_type"
        )
    others = [pair for pair in scope["headers"] if pair[0].lower() != b"content-type"]
    return {**scope, "headers": [*others, (b"content-type", b"application/json")]}


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def host_name(header: str) -> str | None:
    """The name in a Host header without its port, lower case; None when malformed."""
    header = header.strip().lower()
    if header.startswith("["):
        name, bracket, rest = header[1:].partition("]")
        if not bracket:
            return None
    else:
        name, colon, port = header.partition(":")
        rest = colon + port
    if rest and not (rest.startswith(":") and rest[1:].isdigit()):
        return None
    return name.rstrip(".") or None
