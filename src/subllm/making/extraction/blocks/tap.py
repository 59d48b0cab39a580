"""One tap on a block's matrix inputs; accumulators of what methods need behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn

from subllm.making.pruning.method import HESSIAN_COLUMNS, InputStatistics, Need
from subllm.models.arch.spec import ArchSpec

# Rows converted at a time: the float32 copy stays in the second-level cache.
_CHUNK = 128


class Accumulator(Protocol):
    """One statistic of one input, over all rows that it is shown."""

    def add(self, rows: torch.Tensor) -> None:
        """rows: [tokens, features], in the block's dtype, on its device; left as it is."""

    def value(self) -> torch.Tensor:
        """The statistic as `Need` defines it."""


class SquareSums:
    """Need.SQUARE_SUMS."""

    def __init__(self) -> None:
        self._sums: torch.Tensor | None = None

    def add(self, rows: torch.Tensor) -> None:
        sums = column_square_sums(rows)
        self._sums = sums if self._sums is None else self._sums + sums

    def value(self) -> torch.Tensor:
        assert self._sums is not None, "no rows were seen"
        return self._sums


class Hessian:
    """Need.HESSIAN, summed in float32."""

    def __init__(self) -> None:
        self._sums: torch.Tensor | None = None

    def add(self, rows: torch.Tensor) -> None:
        columns = rows.shape[1]
        if self._sums is None:
            slabs = -(-columns // HESSIAN_COLUMNS)
            shape = (slabs, HESSIAN_COLUMNS, HESSIAN_COLUMNS)
            self._sums = torch.zeros(shape, dtype=torch.float32, device=rows.device)
        for start, sums in zip(range(0, columns, HESSIAN_COLUMNS), self._sums, strict=True):
            slab = rows[:, start : start + HESSIAN_COLUMNS].float()
            sums[: slab.shape[1], : slab.shape[1]].addmm_(slab.T, slab)

    def value(self) -> torch.Tensor:
        assert self._sums is not None, "no rows were seen"
        return self._sums


class FullHessian:
    """Need.FULL_HESSIAN, summed in float32 (float64 for float64 rows). It is symmetric: what
    lies below the diagonal panels is not multiplied, but copied at the end."""

    def __init__(self) -> None:
        self._sums: torch.Tensor | None = None

    def add(self, rows: torch.Tensor) -> None:
        wide = rows.to(torch.float64 if rows.dtype == torch.float64 else torch.float32)
        columns = rows.shape[1]
        if self._sums is None:
            self._sums = wide.new_zeros(columns, columns)
        for start in range(0, columns, HESSIAN_COLUMNS):
            stop = start + HESSIAN_COLUMNS
            self._sums[start:stop, start:].addmm_(wide[:, start:stop].T, wide[:, start:])

    def value(self) -> torch.Tensor:
        assert self._sums is not None, "no rows were seen"
        for start in range(0, len(self._sums), HESSIAN_COLUMNS):
            stop = start + HESSIAN_COLUMNS
            self._sums[stop:, start:stop] = self._sums[start:stop, stop:].T
        return self._sums


ACCUMULATORS: dict[Need, Callable[[], Accumulator]] = {
    Need.SQUARE_SUMS: SquareSums,
    Need.HESSIAN: Hessian,
    Need.FULL_HESSIAN: FullHessian,
}


class _EnoughError(Exception):
    """Raised inside a block once its last input has been seen."""


class Tap:
    """Shows every distinct input of a block's matrices to the accumulators of `needs`,
    while the block runs inside the context.

    The matrices that share an input (q, k, v; gate, up) share its statistics. What
    comes after the last matrix's input is not computed: nothing needs it.
    """

    def __init__(self, spec: ArchSpec, block: nn.Module, needs: frozenset[Need]) -> None:
        self._block = block
        self._firsts: dict[str, str] = {}
        for linear in spec.linears:
            self._firsts.setdefault(linear.group, linear.name)
        self._last = spec.linears[-1].group
        self._tokens = dict.fromkeys(self._firsts, 0)
        self._accumulators = {
            group: {need: ACCUMULATORS[need]() for need in needs} for group in self._firsts
        }
        self._handles: list[Any] = []

    def __enter__(self) -> Tap:
        for group, name in self._firsts.items():
            module = self._block.get_submodule(name)
            self._handles.append(module.register_forward_pre_hook(self._hook(group)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, group: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def see(module: nn.Module, args: tuple[Any, ...]) -> None:
            rows = args[0].reshape(-1, args[0].shape[-1])
            self._tokens[group] += len(rows)
            for accumulator in self._accumulators[group].values():
                accumulator.add(rows)
            if group == self._last:
                raise _EnoughError

        return see

    def feed(self, forward: Callable[[], object]) -> None:
        """Run one batch through the block as far as statistics need it."""
        try:
            forward()
        except _EnoughError:
            return

    def statistics(self) -> dict[str, InputStatistics]:
        """Of everything fed so far, by input group."""
        return {
            group: InputStatistics(
                self._tokens[group], {need: kept.value() for need, kept in accumulators.items()}
            )
            for group, accumulators in self._accumulators.items()
        }


def column_square_sums(rows: torch.Tensor) -> torch.Tensor:
    """sum_t rows[t, j] ** 2 as float64 [columns]; partial sums in float32 over at most
    128 rows (float64 for float64 input), so that long sums do not lose small terms."""
    dtype = torch.float64 if rows.dtype == torch.float64 else torch.float32
    if rows.device.type != "cpu":
        return sums_at_once(rows, dtype)
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    for start in range(0, len(rows), _CHUNK):
        total += rows[start : start + _CHUNK].to(dtype, copy=True).square_().sum(0)
    return total


def sums_at_once(rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The same from one copy of all rows in `dtype`, for devices whose caches hold none."""
    squares = rows.to(dtype, copy=True).square_()
    return torch.stack([part.sum(0) for part in torch.split(squares, _CHUNK)]).sum(
        0, dtype=torch.float64
    )
