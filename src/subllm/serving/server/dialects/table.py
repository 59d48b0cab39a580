"""Which dialects are spoken, and which of them a path belongs to."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter

from subllm.serving.server.dialect import Dialect
from subllm.serving.server.dialects import (
    anthropic,
    llamacpp,
    mistral,
    ollama,
    openai,
    responses,
    tabby,
)
from subllm.serving.server.service import Service


def routers(service: Service) -> Iterator[APIRouter]:
    for part in (openai, responses, tabby, mistral, llamacpp, ollama, anthropic):
        yield part.routes(service)


_CLAIMED = {
    **dict.fromkeys(mistral.PATHS, mistral.MISTRAL),
    **dict.fromkeys(llamacpp.PATHS, llamacpp.LLAMACPP),
    **dict.fromkeys(anthropic.PATHS, anthropic.ANTHROPIC),
}


def dialect_of(path: str) -> Dialect:
    """OpenAI's, where no other claims the path."""
    if path.startswith(ollama.PREFIX):
        return ollama.OLLAMA
    return _CLAIMED.get(path, openai.OPENAI)
