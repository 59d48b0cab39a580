"""The page's routes. Its files need no key, so that it can ask for one; what it shows does."""

from __future__ import annotations

import asyncio
import time
from importlib import resources
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from subllm import __version__
from subllm.serving.server.page.files import FILES
from subllm.serving.server.page.state import Facts, state
from subllm.serving.server.service import Service

# Scripts and styles of its own and nothing from elsewhere; no page may frame it.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


def routes(service: Service, facts: Facts) -> APIRouter:
    router = APIRouter(include_in_schema=False)
    started = time.monotonic()
    for path, name in FILES.items():
        router.add_api_route(path, _file(name), methods=["GET", "HEAD"])

    @router.get("/ui/state")
    async def ui_state() -> dict[str, Any]:
        told = await asyncio.to_thread(state, service, facts)
        requests = {"running": service.live.running(), "ended": service.live.ended()}
        uptime = round(time.monotonic() - started, 1)
        return {
            "version": __version__,
            "uptime_seconds": uptime,
            **told,
            "requests": requests,
        }

    return router


def _file(name: str) -> Any:
    def answer() -> Response:
        # Read each time: a few kilobytes, and an idle server keeps none of them.
        data = resources.files(__package__).joinpath("static", name).read_bytes()
        kind = _TYPES[name[name.rindex(".") :]]
        return Response(data, media_type=f"{kind}; charset=utf-8", headers=HEADERS)

    return answer
