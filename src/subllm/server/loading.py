"""Loads the very version of a model that a request was routed to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from subllm.served_context import served_context

if TYPE_CHECKING:
    from subllm.runtime.backends.table import BackendName, KvTypeName
    from subllm.runtime.draft import Draft
    from subllm.runtime.request import Engine
    from subllm.server.jobs import ModelRef
    from subllm.store.store import Store


@dataclass(frozen=True)
class StoreLoader:
    """Opens models of `store` by their digest: a name may have moved since it was routed.

    context_length  upper bound in tokens for every model; a model with a shorter
                    context keeps its own

    The others are those of `load_engine`.
    """

    store: Store
    backend: BackendName = "auto"
    device: str = "auto"
    threads: int | None = None
    context_length: int | None = None
    kv_type: KvTypeName = "bfloat16"
    screened_head: bool = True
    max_batch: int = 8
    queue_limit: int = 64

    def engine(self, ref: ModelRef) -> Engine:
        """Raises as `load_engine` does."""
        from subllm.runtime.loader import load_engine  # numpy and the core, when first needed

        longest = self.store.model(ref.version).prompt.context_length
        return load_engine(
            self.store,
            ref.version,
            backend=self.backend,
            device=self.device,
            threads=self.threads,
            context_length=served_context(longest, self.context_length),
            kv_type=self.kv_type,
            screened_head=self.screened_head,
            max_batch=self.max_batch,
            queue_limit=self.queue_limit,
        )

    def draft(self, ref: ModelRef) -> Draft:
        """The same model to draft for another. Raises as `load_draft` does."""
        from subllm.runtime.loader import load_draft

        return load_draft(
            self.store,
            ref.version,
            backend=self.backend,
            device=self.device,
            threads=self.threads,
            kv_type=self.kv_type,
            screened_head=self.screened_head,
        )
