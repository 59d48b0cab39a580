"""A router over the store's models."""

from __future__ import annotations

import time

from subllm.routing.router import Router
from subllm.routing.sessions import Sessions
from subllm.server.config import ServerConfig
from subllm.server.models import ModelSet


def router_of(models: ModelSet) -> Router:
    """A router that chooses as the server's, without a past."""
    return Router(
        models.sub_models, Sessions(time.monotonic), default_base=ServerConfig().default_base
    )
