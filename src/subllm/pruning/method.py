"""What a pruning method is: statistics and weights in, a mask (and weights) out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import torch

from subllm.sparsity.pattern import Pattern


class Need(Enum):
    """A statistic of a matrix's input that a method may ask the loop to collect."""

    SQUARE_SUMS = "square_sums"


@dataclass(frozen=True)
class InputStatistics:
    """Of one shared input X [tokens, in_features], over all calibration tokens.

    square_sums  float64 [in_features]: sum over tokens of X[:, j] ** 2
    """

    tokens: int
    square_sums: torch.Tensor | None = None


@dataclass(frozen=True)
class Pruned:
    """mask is bool [out, in], True where a weight is kept; weight is a replacement
    for the whole matrix where the method updates what it keeps, else None."""

    mask: torch.Tensor
    weight: torch.Tensor | None = None


class Method(Protocol):
    """A layer-wise pruning method. Knows no files, models or calibration sources."""

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> frozenset[Need]: ...

    @property
    def params(self) -> Mapping[str, Any]:
        """JSON-ready parameters; they are part of a plan's identity."""

    def prune(self, weight: torch.Tensor, statistics: InputStatistics, pattern: Pattern) -> Pruned:
        """weight is [out, in], any float dtype. Raises PatternError where the pattern
        does not fit the shape."""
