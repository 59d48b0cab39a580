"""Opens a model of the store as an engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from subllm.arch.spec import ArchSpec
from subllm.errors import BackendError, ContextLengthError
from subllm.runtime.engine import LocalEngine
from subllm.runtime.weights import FloatArray
from subllm.served_context import served_context
from subllm.sparsity.packing import PackedTensor, unpack_rows
from subllm.store.model_files import ModelFiles, open_model
from subllm.store.store import Store

if TYPE_CHECKING:
    from subllm.runtime.backend import Backend

BackendName = Literal["auto", "native", "torch"]
KvTypeName = Literal["bfloat16", "int8"]

_CUDA_NODES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-ctrl")


class PackedSource:
    """A `WeightSource` and `PackedWeightSource` over one model of the store."""

    def __init__(self, files: ModelFiles) -> None:
        self._files = files
        self._spec = ArchSpec.from_dict(files.manifest.arch)
        self._entries = {entry.name: entry for entry in files.manifest.tensors}

    @property
    def spec(self) -> ArchSpec:
        return self._spec

    def tensor(self, name: str) -> PackedTensor:
        return self._files.tensor(name)

    def rows(self, name: str, start: int, stop: int) -> FloatArray:
        return unpack_rows(self.tensor(name), np.arange(start, stop, dtype=np.int64))

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
    backend: BackendName = "auto",
    device: str = "auto",
    threads: int | None = None,
    context_length: int | None = None,
    max_batch: int = 8,
    queue_limit: int = 64,
    kv_tokens: int = 0,
    kv_bytes: int | None = None,
    kv_type: KvTypeName = "bfloat16",
    dtype: Literal["bfloat16", "float32"] = "bfloat16",
) -> LocalEngine:
    """An engine on the model of that name or digest; see `LocalEngine` for the limits.

    backend         "native" computes on the CPU, on the packed weights themselves; "torch"
                    unpacks them, for any device that torch has; "auto" takes torch where
                    the device is not the CPU
    device          "auto", "cpu", "cuda", "cuda:N"; auto is CUDA where it is usable
    context_length  at most what the model was trained for; see `served_context` for
                    the default
    kv_type         of keys and values in memory (int8: native only)
    dtype           float32 is slow and exact, to judge the other by

    Raises UnknownNameError, StoreError and WeightsError as the store does,
    ContextLengthError for a context longer than the model's, BackendError when the
    backend is missing or does not have the device.
    """
    chosen = choose_backend(backend, device)
    with open_model(store, name) as files:
        manifest = files.manifest
        context = _context(manifest.name, context_length, manifest.prompt.context_length)
        tokenizer = files.tokenizer()
        source = PackedSource(files)
        loaded: Backend
        if chosen == "native":
            loaded = _native(source, threads=threads, kv_type=kv_type, dtype=dtype)
        else:
            loaded = _torch(source, device=device, threads=threads, kv_type=kv_type, dtype=dtype)
    return LocalEngine(
        manifest.name,
        loaded,
        tokenizer,
        context_length=context,
        stop_tokens=manifest.prompt.stop_tokens,
        max_batch=max_batch,
        queue_limit=queue_limit,
        kv_tokens=kv_tokens,
        kv_bytes=kv_bytes,
    )


def _context(name: str, asked: int | None, longest: int) -> int:
    if asked is None:
        return served_context(longest)
    if not 0 < asked <= longest:
        raise ContextLengthError(
            f"a context of {asked} tokens is not possible; {name} takes 1 to {longest}"
        )
    return asked


def choose_backend(backend: BackendName, device: str) -> BackendName:
    """ "native" or "torch" for what was asked for. Raises BackendError for native elsewhere
    than on the CPU."""
    if backend == "native" and device not in ("auto", "cpu"):
        raise BackendError(
            f"the native backend computes on the CPU, not on {device}; use --backend torch"
        )
    if backend != "auto":
        return backend
    if device == "auto":
        return "torch" if _has_cuda() else "native"
    return "native" if device == "cpu" else "torch"


def _has_cuda() -> bool:
    """Whether torch would find a CUDA device. Importing torch costs seconds and a hundred
    megabytes, so it is asked only where the driver shows a device."""
    if not any(Path(node).exists() for node in _CUDA_NODES):
        return False
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def _native(
    source: PackedSource,
    *,
    threads: int | None,
    kv_type: KvTypeName,
    dtype: Literal["bfloat16", "float32"],
) -> Backend:
    from subllm.runtime.backends.native import KvType, NativeBackend

    exact = dtype == "float32"
    kv: KvType = "float32" if exact and kv_type == "bfloat16" else kv_type
    return NativeBackend(source, threads=threads, kv=kv, exact=exact)


def _torch(
    source: PackedSource,
    *,
    device: str,
    threads: int | None,
    kv_type: KvTypeName,
    dtype: Literal["bfloat16", "float32"],
) -> Backend:
    if kv_type != "bfloat16":
        raise BackendError(f"the torch backend has no {kv_type} KV memory; use --backend native")
    try:
        from subllm.runtime.backends.torch import TorchBackend
    except ImportError as error:
        raise BackendError(
            f"torch cannot be imported ({error}); install it with 'pip install torch'"
        ) from error
    return TorchBackend(source, device=device, threads=threads, dtype=dtype)
