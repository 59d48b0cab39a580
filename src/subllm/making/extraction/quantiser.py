"""From weights to packed values, with what calibration knows of a matrix's inputs."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from subllm.kernels.sparsity.layout import Values
from subllm.kernels.sparsity.packing import PackedTensor, pack
from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.pruning.feedback import DAMPING, Feedback, round_with_feedback, slabs_of
from subllm.making.pruning.method import InputStatistics, Need
from subllm.models.arch.spec import LinearSpec

_AT_8_BITS = frozenset({"q", "k", "v", "o"})


def stored_as(linear: LinearSpec, values: Values) -> Values:
    """How a matrix of a model of `values` is stored. int4 leaves attention's projections at 8
    bits: 12 % of a block, to which 40 % of what int4 errs would be due."""
    return "int8" if values == "int4" and linear.role in _AT_8_BITS else values


def needs_of(values: Values) -> frozenset[Need]:
    """What is made use of, where it is collected."""
    return frozenset({Need.SQUARE_SUMS, Need.HESSIAN} if values == "int4" else ())


class Quantiser:
    """Packs the matrices that share an input. int4 minimises the error of their outputs as far
    as `inputs` tells: its scales by the mean squares of the columns, its codes by feedback of
    errors to later columns (`feedback`). Without statistics, and for other values, it is that
    of the weights alone."""

    def __init__(self, inputs: InputStatistics) -> None:
        self._inputs = inputs

    def pack(
        self,
        weights: npt.NDArray[np.float32],
        mask: npt.NDArray[np.bool_] | None,
        pattern: Pattern,
        values: Values,
    ) -> PackedTensor:
        """As `packing.pack`."""
        if values != "int4" or self._importance is None:
            return pack(weights, mask, pattern, values)
        packed = pack(weights, mask, pattern, values, importance=self._importance)
        if not self._slabs:
            return packed
        return round_with_feedback(packed, weights, mask, self._slabs)

    @cached_property
    def _importance(self) -> npt.NDArray[np.float32] | None:
        """Mean squares of the columns, damped as the feedback is."""
        sums = self._inputs.collected.get(Need.SQUARE_SUMS)
        if sums is None or not sums.isfinite().all() or not sums.any():
            return None
        importance: npt.NDArray[np.float32] = (sums / sums.mean() + DAMPING).float().cpu().numpy()
        return importance

    @cached_property
    def _slabs(self) -> list[Feedback]:
        hessian = self._inputs.collected.get(Need.HESSIAN)
        if hessian is None or self._importance is None:
            return []
        return slabs_of(hessian, len(self._importance))
