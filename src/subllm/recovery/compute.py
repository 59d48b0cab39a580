"""What a recovery computes in: bfloat16 where that is faster, else float32."""

from __future__ import annotations

import time

import torch

from subllm.arch.spec import ArchSpec
from subllm.errors import UsageError

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


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


def product_rate(spec: ArchSpec, compute: str, device: torch.device, tokens: int = 1024) -> float:
    """FLOP/s of this model's up projection; about 0.1 s."""
    x = torch.ones(tokens, spec.hidden_size, dtype=DTYPES[compute], device=device)
    w = torch.ones(spec.intermediate_size, spec.hidden_size, dtype=DTYPES[compute], device=device)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        x @ w.T
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2.0 * tokens * w.numel() / best
