"""Magnitude pruning: the smallest |W| of each output row go (Han et al. 2015).

The baseline of the field; it needs no calibration and knows no language.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.pruning.choose import choose
from subllm.making.pruning.method import InputStatistics, Need, Pruned
from subllm.making.pruning.parameter import Parameter


class Magnitude:
    name = "magnitude"
    needs: frozenset[Need] = frozenset()
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    params: Mapping[str, Any] = {}

    def prune(self, weight: torch.Tensor, statistics: InputStatistics, pattern: Pattern) -> Pruned:
        """See `Method.prune`; statistics are not looked at."""
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        return Pruned(choose(weight.abs().to(dtype), pattern))
