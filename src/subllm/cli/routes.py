"""Routes of the store's models as a person asks for them."""

from __future__ import annotations

import time

from subllm.routing.router import Router
from subllm.routing.sessions import Sessions
from subllm.server.config import ServerConfig
from subllm.server.models import ModelSet

# What each reason means to a person.
REASONS = {
    "model": "named",
    "language": "language given",
    "path": "by the file's name",
    "fence": "by a code block's tag",
    "named": "by a language named in the text",
    "content": "by what the code looks like",
    "session": "the last language used",
    "fallback": "no sub-model fits better",
}


def router_of(models: ModelSet) -> Router:
    """A router that chooses as the server's, without a past."""
    return Router(
        models.sub_models, Sessions(time.monotonic), default_base=ServerConfig().default_base
    )
