"""The backend that runs on the compiled core; it needs neither torch nor a GPU."""

from __future__ import annotations

from subllm.engine.backends.native.backend import KvType, NativeBackend
from subllm.engine.backends.table import DTypeName, KvTypeName
from subllm.engine.placement import Placement
from subllm.engine.weights import ScreenedWeightSource

__all__ = ["KvType", "NativeBackend", "load_backend"]


def load_backend(
    source: ScreenedWeightSource,
    *,
    placement: Placement,
    threads: int | None,
    kv_type: KvTypeName,
    dtype: DTypeName,
    screened_head: bool,
) -> NativeBackend:
    """See `LoadBackend`; the device is the CPU."""
    exact = dtype == "float32"
    kv: KvType = "float32" if exact and kv_type == "bfloat16" else kv_type
    return NativeBackend(source, threads=threads, kv=kv, exact=exact, screen=screened_head)
