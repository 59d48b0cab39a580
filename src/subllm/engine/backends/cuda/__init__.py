"""The backend that runs on packed weights on a GPU; importing it imports torch."""

from __future__ import annotations

from subllm.engine.backends.cuda.backend import CudaBackend
from subllm.engine.backends.table import DTypeName, KvTypeName
from subllm.engine.placement import Placement
from subllm.engine.weights import LoadableWeights

__all__ = ["CudaBackend", "load_backend"]


def load_backend(
    source: LoadableWeights,
    *,
    placement: Placement,
    threads: int | None,
    kv_type: KvTypeName,
    dtype: DTypeName,
    screened_head: bool,
) -> CudaBackend:
    """See `LoadBackend`; keys and values have the type of activations, and the head is read
    whole."""
    return CudaBackend(
        source,
        device=placement.device,
        dtype=dtype,
        threads=threads,
        kv_room=placement.kv_room,
    )
