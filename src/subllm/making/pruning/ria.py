"""RIA: relative importance and activations (Zhang et al. 2024, "Plug-and-Play: An Efficient
Post-training Pruning Method for Large Language Models", eq. 2 to 4).

Score of W[i, j] is (|W[i, j]| / column sum + |W[i, j]| / row sum) * ||X_j||_2 ** a: a weight
counts by its share of what its input and its output have, so that no channel goes whole, and
activations count by less than in Wanda (a = 1/2). Weights stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.pruning.choose import choose
from subllm.making.pruning.method import InputStatistics, Need, Pruned
from subllm.making.pruning.parameter import Parameter


class Ria:
    name = "ria"
    needs = frozenset({Need.SQUARE_SUMS})
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("a", 0.5, 0.0, 4.0, "power of the activation norm"),
    )

    def __init__(self, a: float = 0.5) -> None:
        self._a = a

    @property
    def params(self) -> Mapping[str, Any]:
        return {"a": self._a}

    def prune(self, weight: torch.Tensor, statistics: InputStatistics, pattern: Pattern) -> Pruned:
        """See `Method.prune`."""
        return Pruned(choose(scores(weight, statistics[Need.SQUARE_SUMS], self._a), pattern))


def scores(weight: torch.Tensor, square_sums: torch.Tensor, a: float) -> torch.Tensor:
    """Relative importance times ||X|| ** a, [out, in]; float64 for float64 weights, else
    float32. A row or column of zeros scores 0."""
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    magnitude = weight.abs().to(dtype)
    least = torch.finfo(dtype).tiny
    of_column = magnitude / magnitude.sum(0, keepdim=True).clamp_min(least)
    of_row = magnitude / magnitude.sum(1, keepdim=True).clamp_min(least)
    return of_column.add_(of_row).mul_(square_sums.to(weight.device).sqrt().pow(a).to(dtype))
