"""Opens a model of the store as an engine."""

from __future__ import annotations

import logging

import numpy as np

from subllm.engine.backend import Backend
from subllm.engine.backends.table import (
    BackendName,
    DTypeName,
    KvTypeName,
    check_kv_type,
    loader_of,
)
from subllm.engine.choice import choose_placement
from subllm.engine.draft import Draft
from subllm.engine.engine import LocalEngine
from subllm.engine.placement import Demand
from subllm.engine.weights import FloatArray
from subllm.errors import ContextLengthError, DraftError, KernelError
from subllm.kernels.sparsity.packing import PackedTensor, unpack_rows
from subllm.kernels.sparsity.screen import Screen
from subllm.models.arch.spec import ArchSpec
from subllm.models.store.model_files import ModelFiles, open_model
from subllm.models.store.store import Store
from subllm.served_context import served_context

log = logging.getLogger("subllm.runtime")


class PackedSource:
    """A `WeightSource` and `PackedWeightSource` over one model of the store."""

    def __init__(self, files: ModelFiles) -> None:
        self._files = files
        self._spec = ArchSpec.from_dict(files.manifest.arch)
        self._entries = files.manifest.table()

    @property
    def spec(self) -> ArchSpec:
        return self._spec

    def tensor(self, name: str) -> PackedTensor:
        return self._files.tensor(name)

    def screen(self, name: str) -> Screen | None:
        return self._files.screen(name)

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
    dtype: DTypeName = "bfloat16",
    screened_head: bool = True,
    copy_weights: bool = True,
    draft: str | None = None,
) -> LocalEngine:
    """An engine on the model of that name or digest; see `LocalEngine` for the limits.

    backend         "native" computes on the CPU and "cuda" on a GPU, both on the packed weights
                    themselves; "torch" unpacks them, for any device that torch has; "auto":
                    what suits the device
    device          "auto", "cpu", "cuda", "cuda:N"; auto is the GPU with the most free memory
                    that the model fits, else the CPU; see `runtime.placement`. What was chosen
                    is logged
    context_length  at most what the model was trained for; see `served_context` for
                    the default
    kv_type         of keys and values in memory (int8: native only)
    dtype           float32 is slow and exact, to judge the other by
    screened_head   whether draws may read the head's screening plane first (native only)
    copy_weights    into memory whose large pages the CPU reads faster: a second or so for half a
                    GB, not worth it for one reply (native only)
    draft           name or digest of a model that drafts for this one, placed for itself

    Raises UnknownNameError, StoreError and WeightsError as the store does,
    ContextLengthError for a context longer than the model's, BackendError when the
    backend is missing, DeviceError for a GPU that was asked for and is missing or too small,
    DraftError for a draft with other tokens.
    """
    with open_model(store, name) as files:
        manifest = files.manifest
        context = _context(manifest.name, context_length, manifest.prompt.context_length)
        tokenizer = files.tokenizer()
        loaded = _load(
            store, files, context, backend, device, threads, kv_type, dtype, screened_head,
            copy_weights,
        )  # fmt: skip
    engine = LocalEngine(
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
    if draft is not None:
        try:
            found = load_draft(
                store,
                draft,
                backend=backend,
                device=device,
                threads=threads,
                kv_type=kv_type,
                screened_head=screened_head,
                copy_weights=copy_weights,
            )
        except BaseException:
            engine.close()
            raise
        try:
            engine.set_draft(found)
        except DraftError:
            found.backend.close()
            engine.close()
            raise
    return engine


def load_draft(
    store: Store,
    name: str,
    *,
    backend: BackendName = "auto",
    device: str = "auto",
    threads: int | None = None,
    kv_type: KvTypeName = "bfloat16",
    screened_head: bool = True,
    copy_weights: bool = True,
) -> Draft:
    """The model of that name or digest, for `Engine.set_draft`. Its weights are shared with an
    engine on the same model. It may be on another device than the model that it drafts for.
    Raises what `load_engine` raises."""
    with open_model(store, name) as files:
        manifest = files.manifest
        context = served_context(manifest.prompt.context_length)
        loaded = _load(
            store, files, context, backend, device, threads, kv_type, "bfloat16", screened_head,
            copy_weights,
        )  # fmt: skip
        digest = name if name.startswith("sha256-") else store.resolve(name)
        return Draft(manifest.name, digest, loaded, files.tokenizer())


def _load(
    store: Store,
    files: ModelFiles,
    context: int,
    backend: BackendName,
    device: str,
    threads: int | None,
    kv_type: KvTypeName,
    dtype: DTypeName,
    screened_head: bool,
    copy_weights: bool,
) -> Backend:
    manifest = files.manifest
    packed = sum(store.blobs.size(blob) for blob in (manifest.blobs.own, manifest.blobs.shared))
    demand = Demand.of(manifest, packed, context, kv_type)
    source = PackedSource(files)

    def load(wanted: BackendName) -> Backend:
        chosen, placement = choose_placement(demand, wanted, device)
        check_kv_type(chosen, kv_type)
        load_backend = loader_of(chosen)
        if placement.why:
            log.log(logging.WARNING if placement.slow else logging.INFO, "%s", placement.why)
        if chosen == "native" and copy_weights:
            files.copy()
        return load_backend(
            source,
            placement=placement,
            threads=threads,
            kv_type=kv_type,
            dtype=dtype,
            screened_head=screened_head,
        )

    try:
        return load(backend)
    except KernelError as error:
        if backend != "auto":
            raise
        log.warning("%s; the torch backend steps in, on unpacked weights", error)
    return load("torch")


def _context(name: str, asked: int | None, longest: int) -> int:
    if asked is None:
        return served_context(longest)
    if not 0 < asked <= longest:
        raise ContextLengthError(
            f"a context of {asked} tokens is not possible; {name} takes 1 to {longest}"
        )
    return asked
