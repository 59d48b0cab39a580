"""What a plan leaves to the machine: the products that blocks run on, and for `--fast` how
many calibration sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from subllm.errors import BackendError, UsageError
from subllm.kernels import native
from subllm.making.extraction.blocks.native_blocks import NEEDS
from subllm.making.extraction.blocks.open import INT8
from subllm.making.extraction.defaults import FAST_SECONDS
from subllm.making.extraction.plan import ExtractionPlan
from subllm.making.pruning.method import Need
from subllm.making.recovery.compute import DTYPES

Rate = Callable[[str], float]  # FLOP/s of this model's products, by `compute`

# How much faster than bfloat16 another way must be: float32 doubles the memory of hidden
# states, int8 rounds (its masks differ from bfloat16's in 0.3 % of entries).
_WORTH = {"bfloat16": 1.0, "float32": 1.15, INT8: 1.3}


def computes(
    wanted: str, device: torch.device, needs: frozenset[Need], *, fast: bool
) -> tuple[str, ...]:
    """What blocks may run on. "auto" is bfloat16 on a GPU; on a CPU bfloat16 or float32, and
    with `fast` the native engine's int8, where it is built and collects what is needed.
    Raises UsageError for an unknown name, and for int8 where it cannot be."""
    native_fits = device.type == "cpu" and needs <= NEEDS
    if wanted == "auto":
        if device.type != "cpu":
            return ("bfloat16",)
        return ("bfloat16", "float32", *([INT8] if fast and native_fits and _built() else []))
    known = (*DTYPES, INT8)
    if wanted not in known:
        raise UsageError(f"compute {wanted!r} is unknown; use auto or one of {', '.join(known)}")
    if wanted == INT8 and not native_fits:
        raise UsageError("compute 'int8' is for the CPU and for square sums; use auto")
    return (wanted,)


def faster(allowed: Sequence[str], rate: Rate) -> str:
    """The one of `allowed` with the fastest products, where another is worth it."""
    if len(allowed) == 1:
        return allowed[0]
    return max(allowed, key=lambda name: rate(name) / _WORTH[name])


def _built() -> bool:
    try:
        native.core()
    except BackendError:
        return False
    return True


@dataclass(frozen=True)
class Choice:
    """samples and compute of a plan; `known`: an earlier run's."""

    samples: int
    compute: str
    plan: ExtractionPlan
    known: bool


def choose(
    plan_of: Callable[[int, str], ExtractionPlan],
    counts: Sequence[int],
    allowed: Sequence[str],
    started: Callable[[ExtractionPlan], bool],
    rate: Rate,
    seconds: Callable[[int, str], float],
) -> Choice:
    """One of `counts` (ascending) and of `allowed`.

    What is finished or was begun (`started`) is gone on with, the largest count first, so
    that a noisy measurement repeats no work. Else the fastest products by `rate`: with AMX,
    or AVX-512 BF16 at full rate, bfloat16 is two to five times as fast as float32; elsewhere
    it can take half again as long, and int8 a third of that. Then the largest count that
    `seconds` estimates within FAST_SECONDS, or the first.
    """
    for samples in reversed(counts):
        for compute in allowed:
            plan = plan_of(samples, compute)
            if started(plan):
                return Choice(samples, compute, plan, known=True)
    compute = faster(allowed, rate)
    samples = counts[0]
    for more in counts[1:]:
        if seconds(more, compute) <= FAST_SECONDS:
            samples = more
    return Choice(samples, compute, plan_of(samples, compute), known=False)
