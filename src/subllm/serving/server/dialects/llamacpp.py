"""llama.cpp's own routes: /infill and /completion, tokens, templates, properties, metrics."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from subllm import __version__
from subllm.serving.routing.router import Query
from subllm.serving.server.convert import Plan
from subllm.serving.server.dialect import Dialect
from subllm.serving.server.dialects.body import Body
from subllm.serving.server.dialects.llamacpp_reply import NativeReply
from subllm.serving.server.dialects.llamacpp_wire import CompletionBody, InfillBody, Native
from subllm.serving.server.dialects.openai_wire import ChatMessage
from subllm.serving.server.errors import ApiError, bad_request
from subllm.serving.server.framing import Events
from subllm.serving.server.metrics import CONTENT_TYPE
from subllm.serving.server.models import ServedModel, TextSide
from subllm.serving.server.service import Service
from subllm.serving.server.values import Text, TokenIds

PATHS = (
    "/infill",
    "/completion",
    "/tokenize",
    "/detokenize",
    "/apply-template",
    "/props",
    "/slots",
    "/metrics",
)
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    501: "not_supported_error",
    503: "unavailable_error",
}


def error_body(error: ApiError) -> dict[str, Any]:
    kind = _KINDS.get(error.status, error.kind)
    if error.code == "context_length_exceeded":
        kind = "exceed_context_size_error"
    return {"error": {"code": error.status, "message": error.message, "type": kind}}


LLAMACPP = Dialect(error_body)
EVENTS = Events(error_body)


class TokenizeBody(Body):
    content: Text
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class DetokenizeBody(Body):
    tokens: TokenIds


class TemplateBody(Body):
    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]


def routes(service: Service) -> APIRouter:
    router = APIRouter()

    async def answer(body: Native, plan: Plan, request: Request) -> Response:
        reply = NativeReply(plan, fields=body.response_fields, tokens=bool(body.return_tokens))
        return await service.answer(request, reply, EVENTS if body.stream else None)

    async def text_of(body: Body) -> tuple[ServedModel, TextSide]:
        query = Query(body.model, language=body.language, path=body.path)
        _, model, text = await asyncio.to_thread(service.planner.route, query)
        return model, text

    @router.post("/infill")
    async def infill(body: InfillBody, request: Request) -> Response:
        return await answer(body, await service.plan(body.generation, request), request)

    @router.post("/completion")
    async def completion(body: CompletionBody, request: Request) -> Response:
        return await answer(body, await service.plan(body.generation, request), request)

    @router.post("/tokenize")
    async def tokenize(body: TokenizeBody) -> dict[str, Any]:
        _, text = await text_of(body)
        return {"tokens": await asyncio.to_thread(_tokens, text, body)}

    @router.post("/detokenize")
    async def detokenize(body: DetokenizeBody) -> dict[str, Any]:
        _, text = await text_of(body)
        if body.tokens and max(body.tokens) >= text.tokenizer.vocab_size:
            raise bad_request(f"{max(body.tokens)} is no token id of this model", "tokens")
        return {"content": await asyncio.to_thread(text.tokenizer.decode, body.tokens)}

    @router.post("/apply-template")
    async def apply_template(body: TemplateBody) -> dict[str, Any]:
        _, text = await text_of(body)
        messages = [message.message() for message in body.messages]
        turns = [{"role": message.role, "content": message.text} for message in messages]
        render = text.template.render
        return {"prompt": await asyncio.to_thread(render, turns, add_generation_prompt=True)}

    @router.get("/props")
    async def props(model: str | None = None) -> dict[str, Any]:
        served, text = await text_of(Body(model=model))
        tokenizer = text.tokenizer
        return {
            "default_generation_settings": {
                "n_ctx": service.planner.context_length(served),
                "params": {
                    "n_predict": service.config.completion_max_tokens,
                    "temperature": 0.0,
                    "top_k": 0,
                    "top_p": 1.0,
                    "min_p": 0.0,
                    "seed": -1,
                    "stream": False,
                },
            },
            "total_slots": service.config.max_batch,
            "model_alias": served.ref.name,
            "model_path": served.ref.version,
            "chat_template": tokenizer.chat_template or "",
            "bos_token": tokenizer.bos_token or "",
            "eos_token": tokenizer.eos_token or "",
            "modalities": {"vision": False, "audio": False},
            "build_info": f"subllm-{__version__}",
        }

    @router.get("/slots")
    def slots() -> list[dict[str, Any]]:
        """Of each loaded model as many as it runs at once; the first are those that do."""
        found: list[dict[str, Any]] = []
        models = service.models.models()
        for loaded in service.worker.loaded:
            if loaded.name not in models:
                continue
            context = service.planner.context_length(models[loaded.name])
            found += [
                {
                    "id": len(found) + number,
                    "model": loaded.name,
                    "n_ctx": context,
                    "speculative": loaded.draft is not None,
                    "is_processing": number < loaded.active,
                }
                for number in range(service.config.max_batch)
            ]
        return found

    @router.get("/metrics")
    def metrics() -> Response:
        return Response(service.metrics.exposition(service.worker), media_type=CONTENT_TYPE)

    return router


def _tokens(text: TextSide, body: TokenizeBody) -> list[Any]:
    """Ids, or with their pieces."""
    tokenizer = text.tokenizer
    if body.parse_special:
        ids = list(tokenizer.encode(body.content, bos=body.add_special))
    else:
        first = tokenizer.bos_id if body.add_special and tokenizer.adds_bos else None
        ids = [*([] if first is None else [first]), *tokenizer.encode_plain(body.content)]
    if not body.with_pieces:
        return ids
    return [{"id": token, "piece": _piece(text, token)} for token in ids]


def _piece(text: TextSide, token: int) -> str | list[int]:
    """The token's text, or its bytes where they are not whole UTF-8."""
    data = text.tokenizer.token_bytes(token)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)
