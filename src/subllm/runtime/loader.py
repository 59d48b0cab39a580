"""Opens a model of the store as an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from subllm.arch.spec import ArchSpec
from subllm.errors import BackendError, ContextLengthError
from subllm.runtime.engine import LocalEngine
from subllm.runtime.weights import FloatArray
from subllm.sparsity.packing import unpack_rows
from subllm.store.model_files import ModelFiles, open_model
from subllm.store.store import Store

if TYPE_CHECKING:
    from subllm.runtime.backend import Backend

DEFAULT_CONTEXT = 8192
"""Context where none is asked for: long models are served with this much."""


class PackedSource:
    """A `WeightSource` over the packed tensors of one model of the store."""

    def __init__(self, files: ModelFiles) -> None:
        self._files = files
        self._spec = ArchSpec.from_dict(files.manifest.arch)
        self._entries = {entry.name: entry for entry in files.manifest.tensors}

    @property
    def spec(self) -> ArchSpec:
        return self._spec

    def rows(self, name: str, start: int, stop: int) -> FloatArray:
        packed = self._files.tensor(name)
        return unpack_rows(packed, np.arange(start, stop, dtype=np.int64))

    def vector(self, name: str) -> FloatArray:
        return self._files.vector(name)

    def cache_key(self, name: str) -> str | None:
        entry = self._entries.get(name)
        if entry is None or entry.blob != "shared":
            return None
        return f"{self._files.manifest.blobs.shared}/{name}"


def load_engine(
    store: Store,
    name: str,
    *,
    device: str = "auto",
    threads: int | None = None,
    context_length: int | None = None,
    max_batch: int = 8,
    queue_limit: int = 64,
    kv_tokens: int | None = None,
    dtype: Literal["bfloat16", "float32"] = "bfloat16",
) -> LocalEngine:
    """An engine on the model `name`; see `LocalEngine` for the limits.

    context_length  at most what the model was trained for; by default that, or
                    DEFAULT_CONTEXT where it is longer
    Raises UnknownNameError, StoreError and WeightsError as the store does,
    ContextLengthError for a context longer than the model's, BackendError when torch
    or the device is missing.
    """
    with open_model(store, name) as files:
        manifest = files.manifest
        context = _context(name, context_length, manifest.prompt.context_length)
        tokenizer = files.tokenizer()
        backend = _backend(PackedSource(files), device=device, threads=threads, dtype=dtype)
    return LocalEngine(
        manifest.name,
        backend,
        tokenizer,
        context_length=context,
        stop_tokens=manifest.prompt.stop_tokens,
        max_batch=max_batch,
        queue_limit=queue_limit,
        kv_tokens=kv_tokens,
    )


def _context(name: str, asked: int | None, longest: int) -> int:
    if asked is None:
        return min(DEFAULT_CONTEXT, longest)
    if not 0 < asked <= longest:
        raise ContextLengthError(
            f"a context of {asked} tokens is not possible; {name} takes 1 to {longest}"
        )
    return asked


def _backend(
    source: PackedSource,
    *,
    device: str,
    threads: int | None,
    dtype: Literal["bfloat16", "float32"],
) -> Backend:
    try:
        from subllm.runtime.backends.torch import TorchBackend
    except ImportError as error:
        raise BackendError(
            f"torch cannot be imported ({error}); install it with 'pip install torch'"
        ) from error
    return TorchBackend(source, device=device, threads=threads, dtype=dtype)
