"""Rounding to int4 with error feedback (Frantar et al. 2022, "GPTQ: Accurate Post-Training
Quantization for Generative Pre-trained Transformers"), under a fixed mask and fixed scales.

Columns are rounded one after the other, those with the largest inputs first. What a rounding
does to the outputs is made up for by the columns that are still to come, as the inverse of
the Hessian X^T X tells. Scales stay those of weighted least squares, so that any order goes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from subllm.errors import ExtractionError
from subllm.kernels import native
from subllm.kernels.sparsity.int4 import recoded, steps
from subllm.kernels.sparsity.layout import SUB
from subllm.kernels.sparsity.packing import PackedTensor
from subllm.making.pruning.hessian import inverse_factor
from subllm.making.pruning.method import HESSIAN_COLUMNS

DAMPING = 0.01  # of the mean diagonal: what inputs that calibration never saw may be
_BLOCK = 128  # columns rounded before the others are told


@dataclass(frozen=True)
class Feedback:
    """Of one slab of columns. order int64 [n]: as they are rounded; upper float32 [n, n], in
    that order: the Cholesky factor of the inverse Hessian."""

    order: torch.Tensor
    upper: torch.Tensor


def feedback_of(hessian: torch.Tensor) -> Feedback:
    """From float32 [n, n], the sum of x x^T over inputs; without any effect where that cannot
    be factored."""
    order = torch.argsort(hessian.diagonal(), descending=True, stable=True)
    try:
        return Feedback(order, inverse_factor(hessian[order][:, order], DAMPING))
    except ExtractionError:
        return Feedback(torch.arange(len(hessian)), torch.eye(len(hessian)))


def slabs_of(hessian: torch.Tensor, columns: int) -> list[Feedback]:
    """Of every slab of a matrix with so many columns; hessian as `Need.HESSIAN`."""
    slabs = []
    for index, slab in enumerate(hessian.cpu()):
        width = min(HESSIAN_COLUMNS, columns - index * HESSIAN_COLUMNS)
        slabs.append(feedback_of(slab[:width, :width]))
    return slabs


def round_with_feedback(
    packed: PackedTensor,
    weights: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_] | None,
    slabs: list[Feedback],
    wanted: npt.NDArray[np.float32] | None = None,
) -> PackedTensor:
    """`packed`, int4 of `weights` [R, C] under `mask`, with codes that err less in the outputs.
    slabs: one for every HESSIAN_COLUMNS columns. wanted: [R, C], becomes what was rounded:
    weights that each code is the nearest to."""
    terms = [np.ascontiguousarray(term) for term in steps(packed)]
    codes = np.empty(weights.shape, np.uint8)
    for index, feedback in enumerate(slabs):
        order = feedback.order.numpy() + index * HESSIAN_COLUMNS
        left = weights[:, order]
        kept = None if mask is None else np.ascontiguousarray(mask[:, order])
        if kept is not None:
            left *= kept
        found = _slab(torch.from_numpy(left), kept, terms, order, feedback.upper)
        codes[:, order] = found[0]
        if wanted is not None:
            wanted[:, order] = found[1] if kept is None else found[1] * kept
    return recoded(packed, codes, mask)


def _slab(
    left: torch.Tensor,
    kept: npt.NDArray[np.bool_] | None,
    terms: list[npt.NDArray[np.float32]],
    order: npt.NDArray[np.int64],
    upper: torch.Tensor,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Codes [R, n] of the columns `order`, whose weights `left` [R, n] are used up; and what
    those came to before they were rounded, of dropped ones too."""
    left = left.contiguous()
    wanted = np.empty(left.shape, np.float32)
    codes = np.empty(left.shape, np.uint8)
    sub_of = (order // SUB).astype(np.int32)
    for start in range(0, left.shape[1], _BLOCK):
        part = slice(start, min(start + _BLOCK, left.shape[1]))
        block = left[:, part].contiguous()
        found = np.empty(block.shape, np.uint8)
        errors = torch.empty_like(block)
        native.core().round_with_feedback(
            block.numpy(),
            upper[part, part].contiguous().numpy(),
            sub_of[part],
            terms[0],
            terms[1] if len(terms) > 1 else None,
            None if kept is None else np.ascontiguousarray(kept[:, part]).view(np.uint8),
            found,
            errors.numpy(),
        )
        codes[:, part] = found
        wanted[:, part] = block.numpy()
        left[:, part.stop :].addmm_(errors, upper[part, part.stop :], alpha=-1)
    return codes, wanted
