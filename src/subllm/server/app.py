"""The HTTP application: routes, and what they share. Importing it never imports torch."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers

from subllm import __version__
from subllm.routing.router import Router
from subllm.routing.sessions import Sessions, session_key
from subllm.server import errors
from subllm.server.answer import answer
from subllm.server.config import ServerConfig
from subllm.server.convert import Caller, Planner
from subllm.server.errors import bad_request
from subllm.server.guard import Guard
from subllm.server.loaded import LoadedModel
from subllm.server.models import ModelSet
from subllm.server.replies import ChatReply, CompletionReply
from subllm.server.wire import ChatBody, CompletionBody
from subllm.server.worker import EngineWorker

OK = {"status": "ok"}
TIMEOUT = "x-subllm-timeout-ms"


def create_app(
    models: ModelSet,
    config: ServerConfig,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """The application over `models`. Its engine thread runs from start-up to shutdown
    and is `app.state.worker`."""
    worker = EngineWorker(
        models.load,
        max_engines=config.max_engines,
        max_bytes=config.max_bytes,
        max_open=config.max_queue + config.max_batch * config.max_engines,
        estimate=models.size_of,
        kv_bytes=config.kv_bytes,
        step_tokens=config.step_tokens,
        load_draft=models.load_draft,
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.start()
        try:
            yield
        finally:
            await asyncio.to_thread(worker.stop)

    sessions = Sessions(clock, seconds=config.session_seconds)
    router = Router(models.sub_models, sessions, default_base=config.default_base)
    planner = Planner(models, router, config)
    # No documentation pages: they load scripts from elsewhere.
    app = FastAPI(
        title="subllm", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.worker = worker
    app.add_middleware(Guard, config=config)
    errors.install(app)

    @app.post("/v1/completions")
    async def completions(body: CompletionBody, request: Request) -> Response:
        plan = await asyncio.to_thread(planner.completion, body, _caller(request))
        reply = CompletionReply(plan, include_usage=_include_usage(body))
        return await answer(
            request, worker, reply, stream=bool(body.stream), keep_alive=config.keep_alive_seconds
        )

    @app.post("/v1/chat/completions")
    async def chat_completions(body: ChatBody, request: Request) -> Response:
        plan = await asyncio.to_thread(planner.chat, body, _caller(request))
        reply = ChatReply(plan, include_usage=_include_usage(body))
        return await answer(
            request, worker, reply, stream=bool(body.stream), keep_alive=config.keep_alive_seconds
        )

    @app.get("/v1/models")
    def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [_model_object(name) for name in router.ids()]}

    @app.get("/v1/models/{name}")
    def get_model(name: str) -> dict[str, Any]:
        return _model_object(router.check(name))

    started = clock()

    @app.get("/health")
    def health() -> Response:
        """503 with a reason once no request can be served any more, or none gets on."""
        state = OK
        if reason := worker.failure or worker.hang:
            state = {"status": "failed" if worker.failure else "hangs", "reason": reason}
        facts = {
            **state,
            "version": __version__,
            "uptime_seconds": round(clock() - started, 3),
            "open": worker.open,
            "loading": worker.loading,
            "loaded": [_loaded(model) for model in worker.loaded],
        }
        return JSONResponse(facts, 200 if state is OK else 503)

    return app


def _include_usage(body: CompletionBody | ChatBody) -> bool:
    return bool(body.stream_options and body.stream_options.include_usage)


def _caller(request: Request) -> Caller:
    headers = request.headers
    peer = request.client.host if request.client else ""
    session = session_key(headers.get("authorization", ""), headers.get("user-agent", ""), peer)
    return Caller(session, headers.get("x-subllm-language"), _timeout(headers))


def _timeout(headers: Headers) -> float | None:
    """Seconds until a reply ends as it stands, counted from here."""
    given = headers.get(TIMEOUT)
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and 0 < len(given) < 10 and int(given)):
        raise bad_request(f"{TIMEOUT} must be milliseconds, a whole number above 0", TIMEOUT)
    return int(given) / 1000


def _loaded(model: LoadedModel) -> dict[str, Any]:
    return {
        "model": model.name,
        "resident_bytes": model.resident_bytes,
        "active": model.active,
        "draft": model.draft,
        "draft_failure": model.draft_failure,
        "drafted": {
            source: {"tokens": tokens, "accepted": accepted}
            for source, (tokens, accepted) in model.drafted.items()
        },
    }


def _model_object(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "subllm"}
