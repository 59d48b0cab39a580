"""The HTTP application: routes, and what they share. Importing it never imports torch."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from subllm import __version__
from subllm.machine import give_memory_back
from subllm.serving.routing.router import Router
from subllm.serving.routing.sessions import Sessions
from subllm.serving.server import errors
from subllm.serving.server.config import ServerConfig
from subllm.serving.server.convert import Plan, Planner
from subllm.serving.server.dialects.table import dialect_of, routers
from subllm.serving.server.guard import Guard
from subllm.serving.server.live import LiveRequests
from subllm.serving.server.loaded import LoadedModel
from subllm.serving.server.metrics import Metrics
from subllm.serving.server.models import ModelSet
from subllm.serving.server.openapi import describe
from subllm.serving.server.page import routes as page
from subllm.serving.server.page.state import Facts, NoFacts
from subllm.serving.server.service import Service
from subllm.serving.server.tidying import Tidying
from subllm.serving.server.worker import EngineWorker
from subllm.serving.server.worker_config import Bounds, Loading

OK = {"status": "ok"}


def create_app(
    models: ModelSet,
    config: ServerConfig,
    *,
    clock: Callable[[], float] = time.monotonic,
    facts: Facts | None = None,
    planned: Callable[[Plan], None] = lambda plan: None,
) -> FastAPI:
    """The application over `models`. Its engine thread runs from start-up to shutdown
    and is `app.state.worker`. `facts` are what the page at `/` tells of the store,
    `planned` is told of every plan, on several threads. Raises UnknownNameError for a model to
    be preloaded that is not there."""
    worker = EngineWorker(
        Loading(models.load, models.load_draft, models.footprint, models.let_go),
        Bounds(
            config.max_engines,
            config.memory,
            jobs=config.max_queue + config.max_batch * config.max_engines,
            step_tokens=config.step_tokens,
            keep_alive=config.keep_alive,
        ),
        preload=[models.get(name).ref for name in config.preload],
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
    app.add_middleware(Guard, config=config, dialect_of=dialect_of)
    app.add_middleware(
        Tidying,
        busy=lambda: worker.open > 0,
        # To collect takes 60 ms of all threads: not between two keystrokes.
        give_back=lambda: give_memory_back(collect=not worker.loaded),
    )
    describe(app)
    errors.install(app, lambda path: dialect_of(path).error)

    service = Service(models, router, planner, worker, config, Metrics(), LiveRequests(), planned)
    for part in routers(service):
        app.include_router(part)
    app.include_router(page.routes(service, facts or NoFacts()))

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
            "loaded": [_loaded(model, worker.seconds_left(model)) for model in worker.loaded],
        }
        return JSONResponse(facts, 200 if state is OK else 503)

    return app


def _loaded(model: LoadedModel, left: float) -> dict[str, Any]:
    """`left`: seconds until it is unloaded if nobody uses it; null: it stays."""
    return {
        "model": model.name,
        "resident_bytes": model.resident_bytes,
        "active": model.active,
        "unload_in_seconds": round(left, 1) if left < math.inf else None,
        "draft": model.draft,
        "draft_failure": model.draft_failure,
        "drafted": {
            source: {"tokens": tokens, "accepted": accepted}
            for source, (tokens, accepted) in model.drafted.items()
        },
    }
