"""How a model is to be computed."""

from __future__ import annotations

from dataclasses import dataclass

from subllm.engine.backends.table import BackendName, DTypeName, KvTypeName
from subllm.settings import Settings


@dataclass(frozen=True)
class Computing:
    """On what a model is computed, and in which numbers.

    backend        "native" computes on the CPU and "cuda" on a GPU, both on the packed weights
                   themselves; "torch" unpacks them, for any device that torch has; "auto":
                   what suits the device
    device         "auto", "cpu", "cuda", "cuda:N"; auto is the GPU with the most free memory
                   that the model fits, else the CPU; see `engine.placement`
    threads        of the CPU; None: all cores that this process may use
    kv_type        of keys and values in memory (int8: native only)
    dtype          float32 is slow and exact, to judge the other by
    screened_head  whether draws may read the head's screening plane first (native only)
    copy_weights   into memory whose large pages the CPU reads faster: a second or so for half a
                   GB, not worth it for one reply (native only)
    """

    backend: BackendName = "auto"
    device: str = "auto"
    threads: int | None = None
    kv_type: KvTypeName = "bfloat16"
    dtype: DTypeName = "bfloat16"
    screened_head: bool = True
    copy_weights: bool = True

    @classmethod
    def of(cls, settings: Settings) -> Computing:
        return cls(
            backend=settings.backend,
            device=settings.device,
            threads=settings.threads,
            kv_type=settings.kv_type,
            screened_head=settings.screened_head,
        )
