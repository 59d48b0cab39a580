"""Wanda: weights and activations (Sun et al. 2023, "A Simple and Effective Pruning
Approach for Large Language Models", eq. 1).

Score of W[i, j] is |W[i, j]| * ||X_j||_2, the norm of input feature j over all
calibration tokens; the lowest of each output row go. Weights stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.pruning.choose import choose
from subllm.making.pruning.method import InputStatistics, Need, Pruned
from subllm.making.pruning.parameter import Parameter


class Wanda:
    name = "wanda"
    needs = frozenset({Need.SQUARE_SUMS})
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    params: Mapping[str, Any] = {}

    def prune(self, weight: torch.Tensor, statistics: InputStatistics, pattern: Pattern) -> Pruned:
        """See `Method.prune`."""
        return Pruned(choose(scores(weight, statistics[Need.SQUARE_SUMS]), pattern))


def scores(weight: torch.Tensor, square_sums: torch.Tensor) -> torch.Tensor:
    """|W| * ||X||_2 per input feature, [out, in]; float64 for float64 weights, else
    float32 (half-precision products would tie)."""
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    norms = square_sums.to(weight.device).sqrt().to(dtype)
    return weight.abs().to(dtype) * norms
