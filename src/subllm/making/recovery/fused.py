"""AdamW's step, and what lies between a block's products, in the compiled core: one pass over the
memory where torch makes several. With torch's number of threads, on which no result depends.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from subllm.kernels import native

TYPES = (torch.float32, torch.bfloat16)
"""That all of it may be of."""


def chunk() -> int:
    """Kept values whose first place the core wants to know."""
    return int(native.core().ADAMW_CHUNK)


def step(
    gradient: torch.Tensor,
    places: tuple[torch.Tensor | None, torch.Tensor | None],
    master: torch.Tensor | None,
    rest: torch.Tensor | None,
    moments: tuple[torch.Tensor, torch.Tensor],
    weight: torch.Tensor,
    **factors: float,
) -> float:
    """Returns the gradient's norm over the kept values; where that is not finite, nothing has
    changed.

    gradient, weight  contiguous, on the CPU, of TYPES
    places            `Places.stored`
    master, rest      as `Learned` has them: at most one
    factors           clip, beta1, beta2, eps, rate and root, as `_native.adamw` takes them
    """
    bits, starts = (None if each is None else each.numpy() for each in places)
    norm: float = native.core().adamw(
        _pool(torch.get_num_threads()), _array(gradient),
        None if bits is None else bits.view(np.uint64), starts,
        *(None if each is None else each.numpy() for each in (master, rest)),
        *map(_array, moments), _array(weight), **factors,
    )  # fmt: skip
    return norm


def gated(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up, contiguous, on the CPU, of one of TYPES."""
    out = torch.empty_like(gate)
    pool = _pool(torch.get_num_threads())
    native.core().gated(pool, _array(gate), _array(up), None, _array(out), None)
    return out


def gated_gradients(
    gate: torch.Tensor, up: torch.Tensor, gradient: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """By gate and by up."""
    by_gate, by_up = torch.empty_like(gate), torch.empty_like(up)
    native.core().gated(
        _pool(torch.get_num_threads()),
        *map(_array, (gate, up, gradient.contiguous(), by_gate, by_up)),
    )
    return by_gate, by_up


def normed(
    x: torch.Tensor, weight: torch.Tensor, eps: float, gradient: torch.Tensor | None = None
) -> torch.Tensor:
    """RMSNorm of x [..., columns] by weight [columns], or of a gradient by it the one by x; x
    contiguous, on the CPU, of one of TYPES."""
    out = torch.empty_like(x)
    back = None if gradient is None else _array(gradient.contiguous())
    pool = _pool(torch.get_num_threads())
    native.core().normed(pool, _array(x), _array(weight), eps, back, _array(out))
    return out


@cache
def _pool(threads: int) -> Any:
    return native.core().Pool(threads)


def _array(values: torch.Tensor) -> npt.NDArray[Any]:
    """The same memory, bfloat16 as uint16."""
    flat = values.detach().view(-1)
    if flat.dtype == torch.bfloat16:
        return flat.view(torch.int16).numpy().view(np.uint16)
    return flat.numpy()
