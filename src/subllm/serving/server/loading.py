"""Loads the very version of a model that a request was routed to."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from subllm.errors import SubllmError
from subllm.models.arch.kv_size import kv_bytes
from subllm.models.arch.spec import ArchSpec
from subllm.served_context import served_context
from subllm.serving.server.footprint import Footprint

if TYPE_CHECKING:
    from subllm.engine.backends.table import BackendName, KvTypeName
    from subllm.engine.computing import Computing
    from subllm.engine.draft import Draft
    from subllm.engine.request import Engine
    from subllm.models.store.manifest import ModelManifest
    from subllm.models.store.store import Store
    from subllm.serving.server.jobs import ModelRef


LEAST_CONTEXT = 1024
"""No context is made shorter for want of memory."""


@dataclass(frozen=True)
class StoreLoader:
    """Opens models of `store` by their digest: a name may have moved since it was routed.

    context_length  upper bound in tokens for every model; a model with a shorter
                    context keeps its own
    memory          bytes that the server's models may take; None: no bound

    The others are those of `Computing` and `EngineLimits`.
    """

    store: Store
    backend: BackendName = "auto"
    device: str = "auto"
    threads: int | None = None
    context_length: int | None = None
    memory: int | None = None
    kv_type: KvTypeName = "bfloat16"
    screened_head: bool = True
    copy_weights: bool = True
    max_batch: int = 8
    queue_limit: int = 64

    def context_of(self, manifest: ModelManifest) -> int:
        """Tokens that are served of a model: where no length is set, fewer than otherwise if
        `memory` has no room for their keys and values beside the weights."""
        tokens = served_context(manifest.prompt.context_length, self.context_length)
        if self.context_length is None and self.memory is not None:
            blobs = manifest.blobs.own, manifest.blobs.shared
            with contextlib.suppress(SubllmError, OSError):  # loading it tells what is wrong
                left = self.memory - sum(map(self.store.blobs.size, blobs))
                while tokens > LEAST_CONTEXT and self._kv_bytes(manifest, tokens) > left:
                    tokens = max(tokens // 2, LEAST_CONTEXT)
        return tokens

    def footprint(self, ref: ModelRef) -> Footprint:
        """Raises what the store and its files do."""
        manifest = self.store.model(ref.version)
        digests = manifest.blobs.own, manifest.blobs.shared
        parts = {digest: self.store.blobs.size(digest) for digest in digests}
        return Footprint(parts, self._kv_bytes(manifest, self.context_of(manifest)))

    def _kv_bytes(self, manifest: ModelManifest, tokens: int) -> int:
        return kv_bytes(ArchSpec.from_dict(manifest.arch), tokens, self.kv_type)

    def engine(self, ref: ModelRef) -> Engine:
        """Raises as `load_engine` does."""
        from subllm.engine.limits import EngineLimits
        from subllm.engine.loader import load_engine  # numpy and the core, when first needed

        return load_engine(
            self.store,
            ref.version,
            computing=self._computing(),
            limits=EngineLimits(max_batch=self.max_batch, queue_limit=self.queue_limit),
            context_length=self.context_of(self.store.model(ref.version)),
        )

    def draft(self, ref: ModelRef) -> Draft:
        """The same model to draft for another. Raises as `load_draft` does."""
        from subllm.engine.loader import load_draft

        return load_draft(self.store, ref.version, self._computing())

    def _computing(self) -> Computing:
        from subllm.engine.computing import Computing

        return Computing(
            backend=self.backend,
            device=self.device,
            threads=self.threads,
            kv_type=self.kv_type,
            screened_head=self.screened_head,
            copy_weights=self.copy_weights,
        )
