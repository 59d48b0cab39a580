"""No field that a client's library documents is dropped silently: it is honoured, refused by name
where it asks for something, or among those that are known to be of no effect."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types import message_create_params as messages
from openai.types import completion_create_params as completions
from openai.types.chat import completion_create_params as chat
from openai.types.responses import response_create_params as responses

from unit.serving.server.tiny import PYTHON, Live

TURN = [{"role": "user", "content": "hi"}]
OPENAI = {"metadata", "prompt_cache_key", "prompt_cache_options", "safety_identifier", "user"}
ROUTES: list[tuple[str, tuple[Any, ...], dict[str, Any], set[str]]] = [
    (
        "/v1/completions",
        (completions.CompletionCreateParamsBase, completions.CompletionCreateParamsStreaming),
        {"prompt": "x", "max_tokens": 1},
        OPENAI,
    ),
    (
        "/v1/chat/completions",
        (chat.CompletionCreateParamsBase, chat.CompletionCreateParamsStreaming),
        {"messages": TURN, "max_tokens": 1},
        OPENAI,
    ),
    (
        "/v1/responses",
        (responses.ResponseCreateParamsBase, responses.ResponseCreateParamsStreaming),
        {"input": "hi", "max_output_tokens": 1},
        OPENAI | {"stream_options"},
    ),
    (
        "/v1/messages",
        (messages.MessageCreateParamsBase, messages.MessageCreateParamsStreaming),
        {"messages": TURN, "max_tokens": 1},
        {"cache_control", "metadata", "service_tier", "user_profile_id", "workspace_id"},
    ),
]


def documented(*params: Any) -> set[str]:
    return {name for param in params for name in param.__annotations__}


@pytest.mark.parametrize(
    ("path", "params", "body", "harmless"), ROUTES, ids=[route[0] for route in ROUTES]
)
def test_every_field_is_known(
    shared: Live, path: str, params: tuple[Any, ...], body: dict[str, Any], harmless: set[str]
) -> None:
    """One of three values is wrong for any of them, and named."""
    names = documented(*params)
    assert len(names) > 10
    for name in sorted(names - {"model"}):
        replies = [
            shared.post(path, **{"model": PYTHON, **body, name: value})
            for value in ({"x": ["?"]}, "?", 2.5)
        ]
        assert {reply.status_code for reply in replies} <= {200, 400}
        named = any(reply.status_code == 400 and name in reply.text for reply in replies)
        assert named or name in harmless, name
