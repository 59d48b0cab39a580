"""The backend that runs on torch; importing it imports torch."""

from __future__ import annotations

from subllm.engine.backends.table import DTypeName, KvTypeName
from subllm.engine.backends.torch.backend import TorchBackend
from subllm.engine.placement import Placement
from subllm.engine.weights import WeightSource

__all__ = ["TorchBackend", "load_backend"]


def load_backend(
    source: WeightSource,
    *,
    placement: Placement,
    threads: int | None,
    kv_type: KvTypeName,
    dtype: DTypeName,
    screened_head: bool,
) -> TorchBackend:
    """See `LoadBackend`; keys and values have the type of the weights, and the head is read
    whole."""
    return TorchBackend(
        source,
        device=placement.device,
        threads=threads,
        dtype=dtype,
        form=placement.form,
        layers=placement.layers,
        kv_room=placement.kv_room,
    )
