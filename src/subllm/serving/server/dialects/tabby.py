"""Tabby's completions, told from OpenAI's by `segments`, and its health and events.

The text around the cursor comes with its language and path, and pieces of other files.
"""

from __future__ import annotations

import os
import platform
from typing import Annotated, Any, Literal

import psutil
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field, ValidationError

from subllm import __version__
from subllm.engine.request import TokenEvent
from subllm.languages import is_known
from subllm.serving.server.convert import Plan
from subllm.serving.server.dialects.body import Body
from subllm.serving.server.dialects.tabby_stops import stops_of
from subllm.serving.server.errors import validation_error
from subllm.serving.server.generation import Draws, Generation
from subllm.serving.server.refusals import refuse
from subllm.serving.server.reply import Chunk, Reply
from subllm.serving.server.service import Service
from subllm.serving.server.timings import llamacpp_timings
from subllm.serving.server.values import Seed, Temperature, Text, Wire

MAX_TOKENS = 64  # Tabby's own default; the protocol has no field for it


class Snippet(Wire):
    filepath: Text
    body: Text


Snippets = Annotated[list[Snippet], Field(fail_fast=True, max_length=1024)]


class Segments(Wire):
    """`clipboard` and `git_url` are accepted and of no effect."""

    prefix: Text
    suffix: Text | None = None
    filepath: Annotated[Text, Field(max_length=1024)] | None = None
    declarations: Snippets | None = None
    relevant_snippets_from_changed_files: Snippets | None = None
    relevant_snippets_from_recently_opened_files: Snippets | None = None

    @property
    def extra(self) -> tuple[tuple[str, str], ...]:
        """The snippets, what the code refers to last."""
        found = [
            *(self.relevant_snippets_from_recently_opened_files or ()),
            *(self.relevant_snippets_from_changed_files or ()),
            *(self.declarations or ()),
        ]
        return tuple((snippet.filepath, snippet.body) for snippet in found)


class DebugOptions(Wire):
    raw_prompt: Text | None = None


class TabbyBody(Body):
    """`user` is accepted and of no effect."""

    segments: Segments
    mode: Literal["standard", "next_edit_suggestion"] | None = None
    temperature: Temperature | None = None
    seed: Seed | None = None
    debug_options: DebugOptions | None = None

    @classmethod
    def of(cls, fields: dict[str, Any]) -> TabbyBody:
        """Raises ApiError."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise validation_error(error.errors()[0]) from error

    def generation(self) -> Generation:
        """Raises ApiError."""
        debug = self.debug_options or DebugOptions()
        names = ("return_snippets", "return_prompt")
        refuse(debug.model_extra, dict.fromkeys(names, ()))
        refuse({"mode": self.mode}, {"mode": ("standard",)})
        segments = self.segments
        raw = debug.raw_prompt
        fields = self.chosen()
        fields["path"] = self.path or segments.filepath
        if self.language is not None and not is_known(self.language):
            fields["language"] = None  # an editor's own name for a kind of file
        return Generation(
            **fields,
            prompts=(segments.prefix if raw is None else raw,),
            suffix=(segments.suffix or "") if raw is None else None,
            extra=segments.extra if raw is None else (),
            max_tokens=MAX_TOKENS,
            stop=stops_of(fields["language"], fields["path"]) if raw is None else (),
            draws=Draws(temperature=self.temperature, seed=self.seed),
        )


class TabbyReply(Reply):
    """Never a stream."""

    def chunks(self, index: int, event: TokenEvent) -> list[Chunk]:
        return []

    def closing(self) -> list[Chunk]:
        return []

    def whole(self) -> dict[str, Any]:
        usage = self.usage
        return {
            "id": f"cmpl-{int(self.created * 1000):x}",
            "choices": [{"index": 0, "text": self.text(0)}],
            "model": self.model,
            "usage": {
                "prompt_tokens": usage.prompt,
                "completion_tokens": usage.completion,
                "total_tokens": usage.prompt + usage.completion,
                "prompt_tokens_details": {"cached_tokens": usage.cached},
            },
            "timings": llamacpp_timings(usage, self.timings),
        }


async def complete(service: Service, fields: dict[str, Any], request: Request) -> Response:
    """Answer a body with `segments`. Raises ApiError."""
    body = TabbyBody.of(fields)
    plan: Plan = await service.plan(body.generation, request)
    return await service.answer(request, TabbyReply(plan), None)


def routes(service: Service) -> APIRouter:
    router = APIRouter()

    def health() -> dict[str, Any]:
        loaded = [model.name for model in service.worker.loaded]
        return {
            "model": loaded[0] if loaded else "auto",
            "chat_model": loaded[0] if loaded else "auto",
            "device": "cpu",
            "arch": platform.machine(),
            "cpu_info": platform.processor() or platform.machine(),
            "cpu_count": os.cpu_count() or 1,
            "memory_bytes": psutil.virtual_memory().total,
            "cuda_devices": [],
            "version": {
                "build_date": "",
                "build_timestamp": "",
                "git_sha": "",
                "git_describe": f"subllm-{__version__}",
            },
        }

    for method in ("GET", "POST"):
        name = f"health_{method.lower()}"
        router.add_api_route("/v1/health", health, methods=[method], name=name)

    @router.post("/v1/events")
    def events() -> Response:
        """Nothing is kept of what a client tells about its use."""
        return Response(status_code=200)

    return router
