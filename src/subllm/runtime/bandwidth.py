"""Memory traffic: how fast this machine reads, and what a decoded token has to read."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from subllm.arch.spec import ArchSpec
from subllm.store.model_files import ModelFiles

_BUFFER_BYTES = 256 << 20
"""Beyond the caches of all but the largest servers, and no burden for a small machine."""

_RUNS = 12

_READERS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (np.bool_, np.any),
    (np.float32, np.max),
    (np.float64, np.max),
)
"""Reductions that do next to no work for a byte; which is fastest depends on the CPU."""


def read_bandwidth(threads: int, buffer_bytes: int = _BUFFER_BYTES) -> float:
    """Bytes per second that `threads` threads read together from a buffer that does not fit
    the caches: the best run of the best way to read. Takes about a second."""
    # Written once: untouched pages would all be the same page of zeros.
    data = np.empty(buffer_bytes // 64 * 64, np.uint8)
    data.fill(0)
    best = math.inf
    with ThreadPoolExecutor(threads) as executor:
        for dtype, reader in _READERS:
            parts = np.array_split(data.view(dtype), threads)
            for _ in range(_RUNS):
                start = time.perf_counter()
                list(executor.map(reader, parts))
                best = min(best, time.perf_counter() - start)
    return data.nbytes / best


def weight_bytes_per_token(files: ModelFiles) -> int:
    """Bytes of weights, as packed, that decoding one token reads: every matrix and vector
    once, and of an embedding that is not the head too, one row. Keys and values, which
    grow with the context, are not counted."""
    spec = ArchSpec.from_dict(files.manifest.arch)
    total = files.tensor(spec.head_name).nbytes
    if not spec.tied_head:
        total += -(-files.tensor(spec.embedding_name).nbytes // spec.vocab_size)
    for layer in range(spec.num_layers):
        prefix = spec.block_prefix(layer)
        total += sum(files.tensor(f"{prefix}{part.name}.weight").nbytes for part in spec.linears)
    vectors = (entry.name for entry in files.manifest.tensors if entry.values == "f32")
    return total + sum(files.vector(name).nbytes for name in vectors)
