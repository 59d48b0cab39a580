"""Memory traffic: how fast this machine reads, and what a decoded token has to read."""

from __future__ import annotations

import math
import time

import numpy as np

from subllm.kernels import native
from subllm.kernels.products.ops import Pool, sum_words
from subllm.kernels.sparsity.layout import TILE_ROWS
from subllm.models.arch.spec import ArchSpec
from subllm.models.store.model_files import ModelFiles

_BUFFER_BYTES = 256 << 20
"""Beyond the caches of all but the largest servers, and no burden for a small machine."""

_SECONDS = 1.0


def read_bandwidth(threads: int, buffer_bytes: int = _BUFFER_BYTES) -> float:
    """Bytes per second that `threads` threads read together from a buffer that does not fit
    the caches: the best of the runs of a second."""
    pool = Pool(threads)
    # Written once: untouched pages would all be the same page of zeros.
    data = np.full(max(buffer_bytes // 8, 1), 1, np.uint64)
    best, began = math.inf, time.perf_counter()
    while time.perf_counter() - began < _SECONDS:
        start = time.perf_counter()
        sum_words(pool, data)
        best = min(best, time.perf_counter() - start)
    return data.nbytes / best


def weight_bytes_per_token(files: ModelFiles, *, screened: bool = True) -> int:
    """Bytes of weights, as packed, that decoding one token reads: every matrix and vector
    once, of an embedding that is not the head too, one row, and of a head with a screening
    plane that plane and the row tiles of the candidates. Keys and values, which grow with the
    context, are not counted."""
    spec = ArchSpec.from_dict(files.manifest.arch)
    total, screen = files.tensor(spec.head_name).nbytes, files.screen(spec.head_name)
    if screen is not None and screened:
        tiles = -(-spec.vocab_size // TILE_ROWS)
        candidates = native.core().SCREEN_CANDIDATES  # few share a tile
        total = screen.nbytes + total * min(candidates, tiles) // tiles
    if not spec.tied_head:
        total += -(-files.tensor(spec.embedding_name).nbytes // spec.vocab_size)
    for layer in range(spec.num_layers):
        prefix = spec.block_prefix(layer)
        total += sum(files.tensor(f"{prefix}{part.name}.weight").nbytes for part in spec.linears)
    vectors = (entry.name for entry in files.manifest.table().values() if entry.values == "f32")
    return total + sum(files.vector(name).nbytes for name in vectors)
