"""SparseGPT: what is removed is made up for by what is kept (Frantar and Alistarh 2023,
"SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", algorithm 1).

H = X^T X + damping * mean(diag(X^T X)) * I. Columns are decided from left to right. Removing
W[i, j] while columns j.. are still free costs W[i, j]^2 / [H_j..^-1]_jj in squared error of
the outputs (eq. 3), and is made up for best by W[i, j..] -= W[i, j] / [H_j..^-1]_jj *
[H_j..^-1]_j (eq. 2). With U the upper Cholesky factor of H^-1, all these inverses are at
hand: [H_j..^-1]_jj = U_jj^2 and the row of the inverse is U_jj * U_j.

The mask is chosen as columns are reached, so that it sees what earlier columns did: for N:M
a group at a time, for P% a slab of columns at a time. The paper's unstructured choice ranks
all weights of a slab together; here every row of a slab keeps the same number, as the packed
layout wants exact counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch

from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.pruning.choose import keep_highest
from subllm.making.pruning.hessian import inverse_factor
from subllm.making.pruning.method import InputStatistics, Need, Pruned
from subllm.making.pruning.parameter import Parameter

SLAB = 128
"""Columns decided before those on the right of them are told; a multiple of every M."""


class SparseGpt:
    name = "sparsegpt"
    needs = frozenset({Need.FULL_HESSIAN})
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("damping", 0.01, 0.0, 10.0, "added to the Hessian, of its mean diagonal"),
    )

    def __init__(self, damping: float = 0.01) -> None:
        self._damping = damping

    @property
    def params(self) -> Mapping[str, Any]:
        return {"damping": self._damping}

    def prune(self, weight: torch.Tensor, statistics: InputStatistics, pattern: Pattern) -> Pruned:
        """See `Method.prune`. The weights are new ones: float64 for a float64 weight, else
        float32, zeros where the mask is False. Raises ExtractionError for a Hessian that
        cannot be factored."""
        pattern.check(*weight.shape)
        if pattern.kind == "dense":
            return Pruned(torch.ones_like(weight, dtype=torch.bool))
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        hessian = statistics[Need.FULL_HESSIAN].to(weight.device, dtype)
        upper = inverse_factor(hessian, self._damping)
        # Transposed, a column is contiguous. The sweep uses its copy up.
        left = weight.to(dtype, copy=True).T.contiguous()
        mask = _sweep(left, upper, pattern)
        return Pruned(mask.T.contiguous(), left.masked_fill_(~mask, 0).T.contiguous())


def _sweep(left: torch.Tensor, upper: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """The mask [columns, rows] of weights `left` [columns, rows], which become the updated
    ones (what is removed keeps the value that it had when its turn came)."""
    mask = torch.empty(left.shape, dtype=torch.bool, device=left.device)
    errors = torch.empty(SLAB, left.shape[1], dtype=left.dtype, device=left.device)
    for start in range(0, len(left), SLAB):
        stop = min(start + SLAB, len(left))
        part, factor = left[start:stop], upper[start:stop, start:stop]
        for first, last, keep in _groups(pattern, len(left), start, stop):
            group = slice(first - start, last - start)
            scores = part[group].square() / factor.diagonal()[group, None].square()
            mask[first:last] = keep_highest(scores.T.contiguous(), keep).T
            for column in range(first - start, last - start):
                removed = part[column] * ~mask[start + column]
                error = torch.div(removed, factor[column, column], out=errors[column])
                part[column + 1 :].addr_(factor[column, column + 1 :], error, alpha=-1)
        left[stop:].addmm_(upper[start:stop, stop:].T, errors[: stop - start], alpha=-1)
    return mask


def _groups(
    pattern: Pattern, columns: int, start: int, stop: int
) -> Iterator[tuple[int, int, int]]:
    """Columns of a slab whose mask is chosen together, and how many of them a row keeps. An
    unstructured row's count is dealt out evenly to its slabs."""
    if pattern.kind == "nm":
        for first in range(start, stop, pattern.m):
            yield first, first + pattern.m, pattern.n
    else:
        kept = pattern.kept_per_row(columns)
        yield start, stop, kept * stop // columns - kept * start // columns
