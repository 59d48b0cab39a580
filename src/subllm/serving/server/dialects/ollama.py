"""Ollama's routes, so that its clients work: what is there, generate, chat; no downloads."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from subllm.errors import excerpt
from subllm.serving.routing.router import AUTO, Query
from subllm.serving.server.dialect import Dialect
from subllm.serving.server.dialects.ollama_reply import OllamaReply, stamp, unloaded
from subllm.serving.server.dialects.ollama_wire import ChatBody, GenerateBody, Named, PullBody
from subllm.serving.server.errors import ApiError, bad_request
from subllm.serving.server.forms import knows_tools
from subllm.serving.server.framing import Lines
from subllm.serving.server.models import ServedModel
from subllm.serving.server.service import Service

PREFIX = "/api/"
VERSION = "0.12.6"
"""Of Ollama, whose routes these are: clients ask for one that is new enough."""

UNDATED = "1970-01-01T00:00:00Z"  # a model is what its digest says, whenever it was made
NEVER = "2999-12-31T23:59:59Z"
TEMPLATE = (
    "{{- if .Suffix }}{prefix}{{ .Prompt }}{suffix}{{ .Suffix }}{middle}"
    "{{- else }}{{ .Prompt }}{{- end }}"
)


def error_body(error: ApiError) -> dict[str, Any]:
    return {"error": error.message}


OLLAMA = Dialect(error_body, any_type=True)


LINES = Lines(error_body)


def routes(service: Service) -> APIRouter:
    router = APIRouter(prefix=PREFIX.rstrip("/"))

    async def answer(body: GenerateBody | ChatBody, request: Request) -> Response:
        chat = isinstance(body, ChatBody)
        if body.unloads:
            _, model, _ = await asyncio.to_thread(service.planner.route, Query(body.wanted))
            service.worker.unload(model.ref.name)
            return JSONResponse(unloaded(body.wanted or model.ref.name, chat=chat))
        plan = await service.plan(body.generation, request)
        reply = OllamaReply(plan, name=body.wanted, chat=chat, loads=body.loads)
        return await service.answer(request, reply, LINES if body.streams else None)

    @router.get("/version")
    def version() -> dict[str, str]:
        return {"version": VERSION}

    @router.get("/tags")
    def tags() -> dict[str, Any]:
        return {"models": [_entry(service, m) for m in service.models.models().values()]}

    @router.get("/ps")
    def ps() -> dict[str, Any]:
        models = service.models.models()
        return {
            "models": [
                {
                    **_entry(service, models[loaded.name]),
                    "size": loaded.resident_bytes,
                    "size_vram": 0,
                    "expires_at": _expiry(service.worker.seconds_left(loaded)),
                    "context_length": service.planner.context_length(models[loaded.name]),
                }
                for loaded in service.worker.loaded
                if loaded.name in models
            ]
        }

    @router.post("/show")
    async def show(body: Named) -> dict[str, Any]:
        if body.wanted is None:
            raise bad_request("model: required", "model", "invalid_value")
        query = Query(body.wanted)
        _, model, text = await asyncio.to_thread(service.planner.route, query)
        return _shown(service, model, tools=knows_tools(text))

    @router.post("/generate")
    async def generate(body: GenerateBody, request: Request) -> Response:
        return await answer(body, request)

    @router.post("/chat")
    async def chat(body: ChatBody, request: Request) -> Response:
        return await answer(body, request)

    @router.post("/pull")
    def pull(body: PullBody) -> Response:
        name = body.wanted or ""
        if name != AUTO and name not in service.models.models():
            raise ApiError(
                404,
                f"{excerpt(name)} is not here and this server downloads nothing; "
                "run 'subllm pull' and 'subllm extract', then 'subllm list'",
                param="model",
                code="model_not_found",
            )
        if body.stream is False:
            return JSONResponse({"status": "success"})
        return Response(LINES.chunk({"status": "success"}), media_type=LINES.media_type)

    return router


def _expiry(seconds: float) -> str:
    """That many seconds from now."""
    try:
        return stamp(datetime.now(UTC) + timedelta(seconds=seconds))
    except OverflowError:
        return NEVER


def _details(model: ServedModel) -> dict[str, Any]:
    manifest = model.manifest
    family = _architecture(model)
    return {
        "parent_model": manifest.base.name,
        "format": "subllm",
        "family": family,
        "families": [family],
        "parameter_size": manifest.base.name.partition(":")[2].upper(),
        "quantization_level": f"{manifest.pattern} {manifest.values}",
    }


def _entry(service: Service, model: ServedModel) -> dict[str, Any]:
    return {
        "name": model.ref.name,
        "model": model.ref.name,
        "modified_at": UNDATED,
        "size": service.models.size_of(model.ref),
        "digest": model.ref.version.removeprefix("sha256-"),
        "details": _details(model),
    }


def _shown(service: Service, model: ServedModel, *, tools: bool) -> dict[str, Any]:
    """Clients look for ".Suffix" in the template, for capabilities and for the context."""
    family = _architecture(model)
    spec = model.prompt.fim
    template = "{{ .Prompt }}"
    if spec is not None:
        template = TEMPLATE
        for part in ("prefix", "suffix", "middle"):
            template = template.replace(f"{{{part}}}", getattr(spec, part))
    return {
        "modelfile": "",
        "parameters": "",
        "template": template,
        "details": _details(model),
        "model_info": {
            "general.architecture": family,
            "general.basename": model.manifest.base.name.partition(":")[0],
            "general.parameter_count": model.sub_model.parameters,
            f"{family}.context_length": service.planner.context_length(model),
        },
        "capabilities": [
            "completion",
            *(["insert"] if spec is not None else []),
            *(["tools"] if tools else []),
        ],
        "modified_at": UNDATED,
    }


def _architecture(model: ServedModel) -> str:
    return str(model.manifest.arch.get("family") or "unknown")
