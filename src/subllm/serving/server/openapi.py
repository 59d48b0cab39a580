"""The description of the routes, with the statuses and content types that they really have, and a
body that each accepts."""

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

_TEXT = "def area(width, height):\n    return "
_HI = [{"role": "user", "content": "Name a sorting algorithm."}]
_TOKENS = {"max_tokens": 16}
EXAMPLES: dict[str, dict[str, Any]] = {
    "/completions": {"prompt": _TEXT, "suffix": "\n", **_TOKENS},
    "/beta/completions": {"prompt": _TEXT, **_TOKENS},
    "/fim/completions": {"prompt": _TEXT, "suffix": "\n", **_TOKENS},
    "/chat/completions": {"messages": _HI, **_TOKENS},
    "/responses": {"input": "Name a sorting algorithm.", "max_output_tokens": 16},
    "/messages": {"messages": _HI, **_TOKENS},
    "/messages/count_tokens": {"messages": _HI},
    "/infill": {"input_prefix": _TEXT, "input_suffix": "\n", "n_predict": 16},
    "/completion": {"prompt": _TEXT, "n_predict": 16},
    "/tokenize": {"content": _TEXT},
    "/detokenize": {"tokens": [1, 2, 3]},
    "/apply-template": {"messages": _HI},
    "/api/generate": {"prompt": _TEXT, "suffix": "\n", "options": {"num_predict": 16}},
    "/api/chat": {"messages": _HI, "options": {"num_predict": 16}},
    "/api/show": {"model": "auto"},
    "/api/pull": {"model": "auto"},
}
"""By path without its /v1; models are left out, so that any server answers."""


def describe(app: FastAPI) -> None:
    """Puts the description in place of the framework's own, which tells of statuses that never
    come (a body that does not validate is a 400 here)."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, routes=app.routes)
            for path, route in made["paths"].items():
                for method, operation in route.items():
                    responses = operation["responses"]
                    responses.pop("422", None)
                    for status, text in {**_ANY, **(_BODY if method == "post" else {})}.items():
                        responses.setdefault(status, {"description": text})
                    if "requestBody" in operation:
                        _describe_body(path, operation, made["components"]["schemas"])
            made["paths"]["/metrics"]["get"]["responses"]["200"]["content"] = _text("text/plain")
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _describe_body(path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """What it may be, and as what a stream comes."""
    (content,) = operation["requestBody"]["content"].values()
    content["example"] = EXAMPLES[path.removeprefix("/v1")]
    schema = schemas[content["schema"]["$ref"].rpartition("/")[2]]
    if "stream" in schema["properties"]:
        kind = "application/x-ndjson" if path.startswith("/api/") else "text/event-stream"
        operation["responses"]["200"]["content"].update(_text(kind))


def _text(kind: str) -> dict[str, Any]:
    return {kind: {"schema": {"type": "string"}}}
