"""Routing in this process, as the server does it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NoReturn

from subllm.serving.routing.router import Router
from subllm.serving.routing.sessions import Sessions
from subllm.serving.server.config import ServerConfig

if TYPE_CHECKING:
    from subllm.models.store.store import Store
    from subllm.serving.server.jobs import ModelRef
    from subllm.serving.server.models import ModelSet


def served_models(store: Store) -> ModelSet:
    """What is there to choose from; none can be loaded."""
    from subllm.serving.server.models import ModelSet

    return ModelSet.of_store(store, _no_engine)


def router_of(models: ModelSet) -> Router:
    """A router that chooses as the server's, without a past."""
    return Router(
        models.sub_models, Sessions(time.monotonic), default_base=ServerConfig().default_base
    )


def _no_engine(ref: ModelRef) -> NoReturn:
    raise AssertionError(f"routing loaded {ref.name}")
