"""Mistral's fill-in-the-middle: a prompt and a suffix, answered as a chat message is."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from subllm.engine.request import TokenEvent
from subllm.serving.server.dialect import Dialect
from subllm.serving.server.dialects.body import Body, stops
from subllm.serving.server.dialects.openai_reply import OpenAiReply
from subllm.serving.server.errors import ApiError
from subllm.serving.server.framing import Events
from subllm.serving.server.generation import Draws, Generation
from subllm.serving.server.refusals import refuse
from subllm.serving.server.reply import Chunk
from subllm.serving.server.service import Service
from subllm.serving.server.values import MaxTokens, Seed, Temperature, Text, Texts, TopP

PATHS = ("/v1/fim/completions", "/fim/completions")


def error_body(error: ApiError) -> dict[str, Any]:
    return {
        "object": "error",
        "message": error.message,
        "type": error.kind,
        "param": error.param,
        "code": error.code,
    }


MISTRAL = Dialect(error_body)
EVENTS = Events(error_body, end="[DONE]")


class FimBody(Body):
    """`metadata` is accepted and of no effect."""

    prompt: Text
    suffix: Text | None = None
    max_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    random_seed: Seed | None = None
    stop: Text | Texts | None = None
    stream: bool | None = None

    def generation(self) -> Generation:
        """Raises ApiError."""
        refuse(self.model_extra, {"min_tokens": ()})
        return Generation(
            **self.chosen(),
            prompts=(self.prompt,),
            suffix=self.suffix or None,
            max_tokens=self.max_tokens,
            draws=Draws(temperature=self.temperature, top_p=self.top_p, seed=self.random_seed),
            stop=stops(self.stop),
        )


class FimReply(OpenAiReply):
    prefix = "cmpl"
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def chunks(self, index: int, event: TokenEvent) -> list[Chunk]:
        """The last one carries the usage."""
        if not (event.text or event.finish_reason):
            return []
        delta = {"role": "assistant", "content": event.text}
        choice = {"index": index, "delta": delta, "finish_reason": event.finish_reason}
        return [{**self._chunk(choice), **(self._counts() if event.finish_reason else {})}]

    def _open(self, index: int) -> list[Chunk]:
        return []

    def _end(self, index: int) -> dict[str, Any]:
        return {"index": index, "delta": {"content": ""}, "finish_reason": "length"}

    def _choice(self, index: int, text: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "tool_calls": None, "prefix": False}
        return {"index": index, "message": message, "finish_reason": self.finish[index]}


def routes(service: Service) -> APIRouter:
    router = APIRouter()

    async def complete(body: FimBody, request: Request) -> Response:
        reply = FimReply(await service.plan(body.generation, request))
        return await service.answer(request, reply, EVENTS if body.stream else None)

    for path in PATHS:
        router.add_api_route(path, complete, methods=["POST"])
    return router
