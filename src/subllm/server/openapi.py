"""The description of the routes, with the statuses that they really have."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

_ANY = {
    "400": "a field is wrong, unknown to the model or not served; the error names it",
    "401": "the API key is missing or wrong",
    "403": "the Host header is not answered",
    "404": "no such model, or route",
    "503": "the engine has failed, or the server is stopping",
}
_BODY = {
    "413": "the body is too large",
    "415": "the body is not JSON",
    "429": "too many requests wait; Retry-After says when to come back",
    "500": "the engine failed on this request",
}


def describe(app: FastAPI) -> None:
    """Puts the description in place of the framework's own, which tells of statuses that never
    come (a body that does not validate is a 400 here)."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, routes=app.routes)
            for route in made["paths"].values():
                for method, operation in route.items():
                    responses = operation["responses"]
                    responses.pop("422", None)
                    for status, text in {**_ANY, **(_BODY if method == "post" else {})}.items():
                        responses.setdefault(status, {"description": text})
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
