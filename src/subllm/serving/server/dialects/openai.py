"""OpenAI's routes, error objects and event streams."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from subllm.serving.routing.router import AUTO
from subllm.serving.server.dialect import Dialect
from subllm.serving.server.dialects import tabby
from subllm.serving.server.dialects.openai_error import error_body
from subllm.serving.server.dialects.openai_reply import ChatReply, CompletionReply
from subllm.serving.server.dialects.openai_wire import ChatBody, CompletionBody
from subllm.serving.server.errors import ApiError
from subllm.serving.server.framing import Events
from subllm.serving.server.service import Service

OPENAI = Dialect(error_body)
EVENTS = Events(error_body, end="[DONE]")


def routes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/models")
    @router.get("/models")
    def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(service, n) for n in service.router.ids()]}

    @router.get("/v1/models/{name}")
    def get_model(name: str) -> dict[str, Any]:
        return _model(service, service.router.check(name))

    @router.post("/v1/completions")
    @router.post("/completions")
    @router.post("/v1/beta/completions")  # DeepSeek's, for prompt and suffix
    @router.post("/beta/completions")
    async def completions(body: CompletionBody, request: Request) -> Response:
        if "segments" in (body.model_extra or {}):
            return await tabby.complete(service, body.model_dump(exclude_unset=True), request)
        plan = await service.plan(body.generation, request)
        reply = CompletionReply(plan, include_usage=body.include_usage)
        return await service.answer(request, reply, EVENTS if body.stream else None)

    @router.post("/v1/chat/completions")
    @router.post("/chat/completions")
    async def chat_completions(body: ChatBody, request: Request) -> Response:
        plan = await service.plan(body.generation, request)
        reply = ChatReply(plan, include_usage=body.include_usage)
        return await service.answer(request, reply, EVENTS if body.stream else None)

    @router.post("/v1/embeddings")
    @router.post("/embeddings")
    def embeddings() -> Response:
        raise ApiError(
            404,
            "these models write text and make no embeddings; use another server for them",
            code="unsupported",
        )

    return router


def _model(service: Service, name: str) -> dict[str, Any]:
    """`context_length` is the tokens of prompt and reply that are served, of a base and of auto
    the fewest of those that may answer; null: nothing does."""
    models = service.models.models().values()
    answer = [m for m in models if name in (m.ref.name, m.manifest.base.name, AUTO)]
    length = min((service.planner.context_length(model) for model in answer), default=None)
    entry = {"id": name, "object": "model", "created": 0, "owned_by": "subllm"}
    return {**entry, "context_length": length}
