"""AdamW's step in the compiled core: one pass over the memory where torch makes a dozen."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from subllm import native

TYPES = (torch.float32, torch.bfloat16)
"""That gradient, moments and weight may have."""


def chunk() -> int:
    """Kept values whose first place the core wants to know."""
    return int(native.core().ADAMW_CHUNK)


def step(
    gradient: torch.Tensor,
    places: tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None],
    master: torch.Tensor,
    moments: tuple[torch.Tensor, torch.Tensor],
    weight: torch.Tensor,
    **factors: float,
) -> float:
    """Returns the gradient's norm over the kept values; where that is not finite, nothing has
    changed. With torch's number of threads, on which the result does not depend.

    gradient, weight  contiguous, on the CPU, of TYPES
    places            gaps, starts, indices, as `_native.adamw` takes them
    factors           clip, beta1, beta2, eps, rate and root, likewise
    """
    gaps, starts, indices = (None if each is None else each.numpy() for each in places)
    norm: float = native.core().adamw(
        _pool(torch.get_num_threads()), _array(gradient), gaps, starts, indices,
        master.numpy(), *map(_array, moments), _array(weight), **factors,
    )  # fmt: skip
    return norm


@cache
def _pool(threads: int) -> Any:
    return native.core().Pool(threads)


def _array(values: torch.Tensor) -> npt.NDArray[Any]:
    """The same memory, bfloat16 as uint16."""
    flat = values.detach().view(-1)
    if flat.dtype == torch.bfloat16:
        return flat.view(torch.int16).numpy().view(np.uint16)
    return flat.numpy()
