"""Routing in this process, as the server does it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from subllm.routing.router import Router
from subllm.routing.sessions import Sessions
from subllm.server.config import ServerConfig

if TYPE_CHECKING:
    from subllm.server.models import ModelSet


def router_of(models: ModelSet) -> Router:
    """A router that chooses as the server's, without a past."""
    return Router(
        models.sub_models, Sessions(time.monotonic), default_base=ServerConfig().default_base
    )
