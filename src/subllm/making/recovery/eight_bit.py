"""AdamW's moments in 8 bits each (Dettmers et al., arXiv 2110.02861), by bitsandbytes: blocks of
256 values on a grid that is finest near 0, with a float32 scale each.

On a CPU that library computes with torch: it saves memory, and takes time.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from subllm.errors import UsageError

BLOCK = 256
BYTES = 2 * (1 + 4 / BLOCK)
"""What the moments of one value take."""
_PIECE = 1 << 16  # values at a time on a CPU, whole blocks: they stay in the cache


def available() -> bool:
    return find_spec("bitsandbytes") is not None


class Moments:
    """Both moments of `count` values: uint8 [count] and, a block each, float32."""

    def __init__(self, count: int, device: torch.device) -> None:
        """Zeros. Raises UsageError without bitsandbytes."""
        blocks = -(-count // BLOCK)
        # Each for itself, so that each begins where a GPU reads well.
        self.first, self.second = (
            torch.zeros(count, dtype=torch.uint8, device=device) for _ in range(2)
        )
        self.first_scale, self.second_scale = (torch.zeros(blocks, device=device) for _ in range(2))
        self._grids = _grids(device)

    def step(
        self,
        gradient: torch.Tensor,
        master: torch.Tensor,
        *,
        scale: float,
        betas: tuple[float, float],
        eps: float,
        lr: float,
        steps: int,
    ) -> None:
        """AdamW's step on `master`, float32 [count]; gradient: float32 [count], to be multiplied
        by `scale`; steps: with this one, so many were taken."""
        piece = _PIECE if master.device.type == "cpu" else len(master)
        for start in range(0, len(master), max(piece, 1)):
            part = slice(start, start + piece)
            blocks = slice(start // BLOCK, -(-min(start + piece, len(master)) // BLOCK))
            _functions().optimizer_update_8bit_blockwise(
                "adam", gradient[part], master[part], self.first[part], self.second[part], *betas,
                0.0, 0.0, eps, steps, lr, *self._grids, self.first_scale[blocks],
                self.second_scale[blocks], 0.0, scale, False,
            )  # fmt: skip

    def states(self) -> dict[str, torch.Tensor]:
        """What a saved state holds of it."""
        return {
            "first": self.first, "first_scale": self.first_scale,
            "second": self.second, "second_scale": self.second_scale,
        }  # fmt: skip


@cache
def _functions() -> Any:
    try:
        return import_module("bitsandbytes.functional")
    except (ImportError, OSError, RuntimeError) as error:
        raise UsageError(
            f"moments in 8 bits need bitsandbytes ({error}); install it with "
            "pip install 'subllm[gpu]'"
        ) from error


@cache
def _grids(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Of signed and of positive numbers."""
    functions = _functions()
    signed, positive = (functions.create_dynamic_map(sign).to(device) for sign in (True, False))
    return signed, positive
