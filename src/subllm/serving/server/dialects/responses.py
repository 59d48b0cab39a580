"""OpenAI's responses: text and calls of tools, whole or as a stream of named events; nothing is
stored."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from subllm.serving.server.dialects.openai_error import error_body
from subllm.serving.server.dialects.responses_reply import ResponsesReply
from subllm.serving.server.dialects.responses_wire import ResponsesBody
from subllm.serving.server.framing import Events
from subllm.serving.server.service import Service

EVENTS = Events(error_body, named=True)


def routes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/responses")
    @router.post("/responses")
    async def responses(body: ResponsesBody, request: Request) -> Response:
        reply = ResponsesReply(await service.plan(body.generation, request), body)
        return await service.answer(request, reply, EVENTS if body.stream else None)

    return router
