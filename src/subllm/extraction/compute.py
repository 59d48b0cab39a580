"""The dtype that blocks run in while weights are chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from subllm.arch.spec import ArchSpec
from subllm.errors import UsageError
from subllm.extraction.blocks.open import DTYPES, INT8
from subllm.extraction.estimate import measured_rate
from subllm.extraction.plan import ExtractionPlan

Rate = Callable[[str], float]  # FLOP/s of this model's products, by `compute`

# float32 doubles the memory of the hidden states: not for a few per cent of time.
_WORTH = 1.15


def choose_compute(
    wanted: str,
    spec: ArchSpec,
    device: torch.device,
    plan: ExtractionPlan,
    started: Callable[[ExtractionPlan], bool],
    rate: Rate | None = None,
) -> ExtractionPlan:
    """`plan` with its `compute` decided.

    "auto" is bfloat16 on a GPU, and on a CPU whichever of bfloat16 and float32 multiplies
    faster: with AMX, or AVX-512 BF16 at full rate, bfloat16 is twice to five times as fast;
    elsewhere it can take half again as long as float32. What is finished or was begun in one
    of them (`started`) stays with it, so that a noisy measurement repeats no work. rate
    stands in for the measurement. Raises UsageError for an unknown dtype.
    """
    if wanted != "auto":
        known_names = (*DTYPES, INT8)
        if wanted not in known_names:
            raise UsageError(
                f"compute {wanted!r} is unknown; use auto or one of {', '.join(known_names)}"
            )
        return replace(plan, compute=wanted)
    half, full = replace(plan, compute="bfloat16"), replace(plan, compute="float32")
    if device.type != "cpu":
        return half
    for known in (half, full):
        if started(known):
            return known
    measure = rate or (lambda compute: measured_rate(spec, device, compute))
    faster = measure("float32") > _WORTH * measure("bfloat16")
    return full if faster else half
