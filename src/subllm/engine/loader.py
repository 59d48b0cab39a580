"""Opens a model of the store as an engine."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from subllm.engine.backend import Backend
from subllm.engine.backends.table import (
    BackendName,
    check_kv_type,
    loader_of,
)
from subllm.engine.choice import choose_placement
from subllm.engine.computing import Computing
from subllm.engine.draft import Draft
from subllm.engine.engine import LocalEngine
from subllm.engine.engine_model import EngineModel
from subllm.engine.limits import EngineLimits
from subllm.engine.placement import Demand
from subllm.engine.weights import FloatArray
from subllm.errors import ContextLengthError, DraftError, KernelError
from subllm.kernels.sparsity.packing import PackedTensor, unpack_rows
from subllm.kernels.sparsity.screen import Screen
from subllm.models.arch.spec import ArchSpec
from subllm.models.store.model_files import ModelFiles, open_model
from subllm.models.store.store import Store
from subllm.served_context import served_context

log = logging.getLogger("subllm.engine")


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
    computing: Computing = Computing(),
    limits: EngineLimits = EngineLimits(),
    context_length: int | None = None,
    draft: str | None = None,
) -> LocalEngine:
    """An engine on the model of that name or digest. Where it was put is logged.

    context_length  at most what the model was trained for; see `served_context` for
                    the default
    draft           name or digest of a model that drafts for this one, placed for itself

    Raises UnknownNameError, StoreError and WeightsError as the store does,
    ContextLengthError for a context longer than the model's, BackendError when the
    backend is missing, DeviceError for a GPU that was asked for and is missing or too small,
    DraftError for a draft with other tokens.
    """
    with open_model(store, name) as files:
        manifest = files.manifest
        context = _context(manifest.name, context_length, manifest.prompt.context_length)
        model = EngineModel(manifest.name, files.tokenizer(), context, manifest.prompt.stop_tokens)
        loaded = _load(store, files, context, computing)
    engine = LocalEngine(model, loaded, limits=limits)
    if draft is not None:
        try:
            found = load_draft(store, draft, replace(computing, dtype="bfloat16"))
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


def load_draft(store: Store, name: str, computing: Computing = Computing()) -> Draft:
    """The model of that name or digest, for `Engine.set_draft`. Its weights are shared with an
    engine on the same model. It may be on another device than the model that it drafts for.
    Raises what `load_engine` raises."""
    with open_model(store, name) as files:
        manifest = files.manifest
        context = served_context(manifest.prompt.context_length)
        loaded = _load(store, files, context, computing)
        digest = name if name.startswith("sha256-") else store.resolve(name)
        return Draft(manifest.name, digest, loaded, files.tokenizer())


def _load(store: Store, files: ModelFiles, context: int, computing: Computing) -> Backend:
    manifest = files.manifest
    packed = sum(store.blobs.size(blob) for blob in (manifest.blobs.own, manifest.blobs.shared))
    demand = Demand.of(manifest, packed, context, computing.kv_type)
    source = PackedSource(files)

    def load(wanted: BackendName) -> Backend:
        chosen, placement = choose_placement(demand, wanted, computing.device)
        check_kv_type(chosen, computing.kv_type)
        load_backend = loader_of(chosen)
        if placement.why:
            log.log(logging.WARNING if placement.slow else logging.INFO, "%s", placement.why)
        if chosen == "native" and computing.copy_weights:
            files.copy()
        return load_backend(
            source,
            placement=placement,
            threads=computing.threads,
            kv_type=computing.kv_type,
            dtype=computing.dtype,
            screened_head=computing.screened_head,
        )

    try:
        return load(computing.backend)
    except KernelError as error:
        if computing.backend != "auto":
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
