"""Every failure as HTTP status, message, type, parameter and code; each dialect has its own
body for these.

Importing this module does not import fastapi, so that the command line can plan a request
as the server does and still start at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from subllm.errors import (
    BackendError,
    ContextLengthError,
    EngineBusyError,
    LockedError,
    NoModelError,
    ServerError,
    SubllmError,
    UnknownNameError,
    UsageError,
    excerpt,
)

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

log = logging.getLogger("subllm.server")

INVALID = "invalid_request_error"
SERVER = "server_error"


class ApiError(Exception):
    """The wire form of a failure: HTTP status and the fields of the error object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def response(self, shape: ErrorShape) -> JSONResponse:
        """With the body that `shape` makes."""
        from fastapi.responses import JSONResponse

        return JSONResponse(shape(self), self.status, headers=self.headers)


ErrorShape = Callable[[ApiError], dict[str, Any]]
"""Makes the body that tells of a failure."""


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(400, message, param=param, code=code)


def api_error(error: BaseException) -> ApiError:
    """The wire form of any exception. What is not raised on purpose is logged, and
    the client learns no detail of it."""
    match error:
        case ApiError():
            return error
        case UnknownNameError(kind="language"):
            return bad_request(str(error), param="language", code="unknown_language")
        case UnknownNameError():
            return ApiError(404, str(error), param="model", code=f"{error.kind}_not_found")
        case NoModelError():
            return ApiError(404, str(error), param="model", code="model_not_found")
        case ContextLengthError():
            return bad_request(str(error), code="context_length_exceeded")
        case UsageError():
            return bad_request(str(error))
        case EngineBusyError():
            return ApiError(
                429,
                str(error),
                kind="rate_limit_error",
                code="queue_full",
                headers={"Retry-After": "1"},
            )
        case BackendError() | ServerError() | LockedError():
            return ApiError(503, str(error), kind=SERVER, code="unavailable")
        case SubllmError():
            return ApiError(500, str(error), kind=SERVER, code="engine_error")
    log.error("unexpected error", exc_info=error)
    return ApiError(
        500, "internal error; the server's log has the details", kind=SERVER, code="internal_error"
    )


def validation_error(first: Mapping[str, Any]) -> ApiError:
    """The first problem of a body that does not validate, with its place."""
    kind = first.get("type", "")
    place = [str(part) for part in first.get("loc", ()) if part != "body"]
    if kind == "json_invalid":
        return bad_request("the body is not valid JSON", code="invalid_json")
    if not place:
        return bad_request("the body must be a JSON object", code="invalid_body")
    # A union reports each of its members: name the field, not the member.
    param = place[0]
    message = str(first.get("msg", "invalid value")).removeprefix("Value error, ")
    if kind == "missing":
        message = "required"
    elif len(place) > 1:
        message = f"{message} (at {'.'.join(place)})"
    text = f"{param}: {message}".encode("utf-8", "replace").decode()
    return bad_request(excerpt(text, 500), param=excerpt(param), code="invalid_value")


def _http_error(path: str, error: HTTPException) -> ApiError:
    headers = dict(error.headers or {})
    if error.status_code == 400:  # the one that the framework raises itself
        return bad_request("the body cannot be read as JSON", code="invalid_json")
    if error.status_code == 404:
        return ApiError(
            404,
            f"there is no {excerpt(path)}; this server has /v1/models, /v1/completions, "
            "/v1/chat/completions, /health and those that the README names",
            code="unknown_url",
        )
    if error.status_code == 405:
        allow = headers.get("Allow") or headers.get("allow") or "another method"
        return ApiError(
            405, f"method not allowed; use {allow}", code="method_not_allowed", headers=headers
        )
    kind = SERVER if error.status_code >= 500 else INVALID
    return ApiError(error.status_code, str(error.detail), kind=kind, headers=headers)


def install(app: FastAPI, shape_of: Callable[[str], ErrorShape]) -> None:
    """Route every exception of `app` through `api_error`; `shape_of` a path makes the body."""
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    def respond(request: Request, error: ApiError) -> JSONResponse:
        return error.response(shape_of(request.url.path))

    async def on_validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return respond(request, validation_error(error.errors()[0]))

    async def on_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return respond(request, _http_error(request.url.path, error))

    async def on_error(request: Request, error: Exception) -> JSONResponse:
        return respond(request, api_error(error))

    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(ApiError, on_error)
    app.add_exception_handler(SubllmError, on_error)
