"""Loads the very version of a model that a request was routed to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from subllm.served_context import served_context

if TYPE_CHECKING:
    from subllm.runtime.backends.table import BackendName, KvTypeName
    from subllm.runtime.request import Engine
    from subllm.server.jobs import ModelRef
    from subllm.store.store import Store


def engine_loader(
    store: Store,
    *,
    backend: BackendName,
    device: str,
    threads: int | None,
    context_length: int | None,
    kv_type: KvTypeName,
    **limits: Any,
) -> Callable[[ModelRef], Engine]:
    """Opens models of `store` by their digest: a name may have moved since it was routed.

    context_length  upper bound in tokens for every model; a model with a shorter
                    context keeps its own
    limits          of `load_engine`: max_batch, queue_limit

    What it returns raises as `load_engine` does.
    """

    def load(ref: ModelRef) -> Engine:
        from subllm.runtime.loader import load_engine  # numpy and the core, when first needed

        longest = store.model(ref.version).prompt.context_length
        return load_engine(
            store,
            ref.version,
            backend=backend,
            device=device,
            threads=threads,
            context_length=served_context(longest, context_length),
            kv_type=kv_type,
            **limits,
        )

    return load
