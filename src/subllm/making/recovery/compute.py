"""What a recovery computes in: bfloat16 where that is faster, else float32."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from subllm.errors import UsageError
from subllm.models.arch.spec import ArchSpec

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
MEASURED_TOKENS = 2048
"""That products are measured on."""


def choose_compute(wanted: str, spec: ArchSpec, device: torch.device) -> str:
    """A name in DTYPES; "auto" measures on a CPU and is bfloat16 on a GPU. Raises UsageError
    for an unknown name."""
    if wanted in DTYPES:
        return wanted
    if wanted != "auto":
        known = ", ".join(DTYPES)
        raise UsageError(f"compute {wanted!r} is unknown; use auto or one of {known}")
    if device.type != "cpu":
        return "bfloat16"
    return max(("bfloat16", "float32"), key=lambda name: product_rate(spec, name, device))


def product_rate(spec: ArchSpec, compute: str, device: torch.device) -> float:
    """FLOP/s of this model's own up projection on MEASURED_TOKENS tokens; takes about 0.2 s."""
    x = torch.ones(MEASURED_TOKENS, spec.hidden_size, dtype=DTYPES[compute], device=device)
    w = torch.ones(spec.intermediate_size, spec.hidden_size, dtype=DTYPES[compute], device=device)

    def product() -> None:
        torch.nn.functional.linear(x, w)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return 2.0 * MEASURED_TOKENS * w.numel() / fastest(product)


def fastest(product: Callable[[], None]) -> float:
    """Seconds of the fastest of three runs, after one that does not count."""
    product()
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - start)
    return best
