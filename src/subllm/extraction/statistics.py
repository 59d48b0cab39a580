"""Calibration statistics of one block, collected while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from subllm.arch.spec import ArchSpec
from subllm.pruning.method import InputStatistics

# Rows converted at a time: the float32 copy stays in the second-level cache.
_CHUNK = 128


class _EnoughError(Exception):
    """Raised inside a block once its last input has been seen."""


class SquareSums:
    """Sums of squares of every distinct input of a block's matrices.

    The matrices that share an input (q, k, v; gate, up) share its statistics. What
    comes after the last matrix's input is not computed: nothing needs it.
    """

    def __init__(self, spec: ArchSpec, block: nn.Module) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._tokens: dict[str, int] = {}
        firsts: dict[str, str] = {}
        for linear in spec.linears:
            firsts.setdefault(linear.group, linear.name)
        last = spec.linears[-1].group
        self._handles = [
            block.get_submodule(name).register_forward_pre_hook(self._hook(group, group == last))
            for group, name in firsts.items()
        ]

    def _hook(self, group: str, last: bool) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def see(module: nn.Module, args: tuple[Any, ...]) -> None:
            rows = args[0].reshape(-1, args[0].shape[-1])
            sums = column_square_sums(rows)
            self._sums[group] = self._sums[group] + sums if group in self._sums else sums
            self._tokens[group] = self._tokens.get(group, 0) + len(rows)
            if last:
                raise _EnoughError

        return see

    def feed(self, forward: Callable[[], object]) -> None:
        """Run one batch through the block as far as statistics need it."""
        try:
            forward()
        except _EnoughError:
            return

    def finish(self) -> dict[str, InputStatistics]:
        """Detach from the block; statistics by input group."""
        for handle in self._handles:
            handle.remove()
        return {g: InputStatistics(self._tokens[g], s) for g, s in self._sums.items()}


def column_square_sums(rows: torch.Tensor) -> torch.Tensor:
    """sum_t rows[t, j] ** 2 as float64 [columns]; partial sums in float32 over at most
    128 rows (float64 for float64 input), so that long sums do not lose small terms."""
    dtype = torch.float64 if rows.dtype == torch.float64 else torch.float32
    if rows.device.type != "cpu":
        return rows.to(dtype).square().sum(0, dtype=torch.float64)
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    for start in range(0, len(rows), _CHUNK):
        total += rows[start : start + _CHUNK].to(dtype, copy=True).square_().sum(0)
    return total
