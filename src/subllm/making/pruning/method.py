"""What a pruning method is: statistics and weights in, a mask (and weights) out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import torch

from subllm.errors import ExtractionError
from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.pruning.parameter import Parameter


class Need(Enum):
    """A statistic that a method may ask for.

    Of a matrix's input X [tokens, in_features], over all calibration tokens:

    SQUARE_SUMS  float64 [in_features]: sum over tokens of X[:, j] ** 2
    HESSIAN      float32 [slabs, HESSIAN_COLUMNS, HESSIAN_COLUMNS]: sum over tokens of
                 X[:, i] * X[:, j] for columns of the same slab of HESSIAN_COLUMNS; zeros
                 beyond in_features
    FULL_HESSIAN float32 (float64 in float64 blocks) [in_features, in_features]: the same sum
                 for all pairs of columns

    Of a matrix W [out, in] in the whole dense model, `tokens` being those that are predicted:

    GRADIENTS    float32 (float64 in float64 blocks) [2, out, in]: with g_s the gradient of
                 sequence s's summed next-token loss in nats, the sum over sequences of g_s and
                 that of g_s ** 2 (the empirical Fisher's diagonal)
    GENERAL_GRADIENTS  the same over text of no one language

    MASK_LOGITS  float32 [out, groups of M, C(M, N)]: what training on the loss made of the
                 logits of every group's masks (`maskllm`); `tokens` those that were learned from
    """

    SQUARE_SUMS = "square sums of activations"
    HESSIAN = "products of activations"
    FULL_HESSIAN = "products of all columns of activations"
    GRADIENTS = "gradients of the loss"
    GENERAL_GRADIENTS = "gradients of the loss of general text"
    MASK_LOGITS = "logits of masks"


WHOLE_MODEL = frozenset({Need.GRADIENTS, Need.GENERAL_GRADIENTS, Need.MASK_LOGITS})
"""Needs that no single block can meet."""

HESSIAN_COLUMNS = 1024
"""What is further apart is taken as unrelated: all of it would cost more than the blocks."""


@dataclass(frozen=True)
class InputStatistics:
    """Of one shared input, or of one matrix where the needs are of the whole model: the tokens
    seen, and what was collected of them."""

    tokens: int
    collected: Mapping[Need, torch.Tensor] = field(default_factory=dict)

    def __getitem__(self, need: Need) -> torch.Tensor:
        """Raises ExtractionError for what was not collected."""
        if need not in self.collected:
            raise ExtractionError(f"the method needs {need.value}; calibrate before pruning")
        return self.collected[need]


@dataclass(frozen=True)
class Pruned:
    """mask is bool [out, in], True where a weight is kept; weight is a replacement
    for the whole matrix where it was updated, else None."""

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
        """JSON-ready values of all its parameters; they are part of a plan's identity."""

    def prune(self, weight: torch.Tensor, statistics: InputStatistics, pattern: Pattern) -> Pruned:
        """weight is [out, in], any float dtype, left as it is. Raises PatternError where the
        pattern does not fit the shape, ExtractionError without the statistics it needs."""


class MethodClass(Protocol):
    """What the registry holds: makes the method from values of its `parameters`."""

    @property
    def parameters(self) -> tuple[Parameter, ...]: ...

    def __call__(self, *args: Any, **values: Any) -> Method: ...
