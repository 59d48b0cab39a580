"""How much of a model's context is served, by the memory that there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracles.packed_models import NAME, PackedMemory, store_model
from oracles.smallest_model import SHAPE
from oracles.tiny_models import MemorySource

from subllm.models.arch.kv_size import kv_bytes
from subllm.models.arch.registry import spec_from_config
from subllm.models.arch.tensors import tensor_shapes
from subllm.models.catalog.prompt import PromptSpec
from subllm.models.store.manifest import ModelManifest
from subllm.models.store.store import Store
from subllm.serving.server.jobs import ModelRef
from subllm.serving.server.loading import LEAST_CONTEXT, StoreLoader


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    spec = spec_from_config(SHAPE)
    ones = {name: np.ones(size, np.float32) for name, size in tensor_shapes(spec).items()}
    place: Path = tmp_path_factory.mktemp("loading") / "store"
    return store_model(place, PackedMemory(MemorySource(spec, ones)))


def long(store: Store) -> ModelManifest:
    return store.model(NAME).model_copy(update={"prompt": PromptSpec(context_length=32768)})


def test_the_default_follows_the_memory(store: Store) -> None:
    manifest = long(store)
    spec = spec_from_config(SHAPE)
    blobs = manifest.blobs
    weights = store.blobs.size(blobs.own) + store.blobs.size(blobs.shared)

    def served(tokens: int, **options: int) -> int:
        memory = weights + kv_bytes(spec, tokens)
        return StoreLoader(store, memory=memory, **options).context_of(manifest)

    assert StoreLoader(store).context_of(manifest) == 8192
    assert served(100_000) == 8192
    assert served(8192) == 8192
    assert served(8191 - 64) == 4096
    assert served(2048) == 2048
    assert served(100) == LEAST_CONTEXT
    assert served(100, context_length=16384) == 16384  # was asked for: loading refuses it
    short = manifest.model_copy(update={"prompt": PromptSpec(context_length=256)})
    assert StoreLoader(store, memory=1).context_of(short) == 256


def test_the_footprint_is_of_that_context(store: Store) -> None:
    ref = ModelRef(NAME, store.resolve(NAME))
    found = StoreLoader(store, memory=10**9).footprint(ref)
    longest = store.model(NAME).prompt.context_length
    assert found.kv == kv_bytes(spec_from_config(SHAPE), min(longest, 8192))
    assert found.weights == sum(found.parts.values()) > 0
    int8 = StoreLoader(store, memory=10**9, kv_type="int8").footprint(ref)
    assert int8.kv < found.kv
    # What was told is what an engine takes.
    engine = StoreLoader(store, memory=10**9, backend="native", threads=1).engine(ref)
    assert engine.kv_budget == found.kv
    assert engine.resident_bytes <= found.weights
    engine.close()
