"""The inverse of a Hessian of inputs, as what removes or rounds weights needs it."""

from __future__ import annotations

import torch

from subllm.errors import ExtractionError


def inverse_factor(hessian: torch.Tensor, damping: float) -> torch.Tensor:
    """U with U^T U = (H + damping * mean(diag H) * I)^-1, upper triangular, [n, n]. Inputs
    that are all zero count as unrelated and alike. Raises ExtractionError where the damped
    matrix has no such factor in its precision."""
    damped = hessian.clone()
    diagonal = damped.diagonal()
    mean = diagonal.mean()
    diagonal += damping * mean if mean > 0 else 1.0
    lower, failed = torch.linalg.cholesky_ex(damped)
    del damped
    if not failed:
        upper: torch.Tensor
        upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not failed and upper.isfinite().all():
            return upper
    raise ExtractionError(
        f"the Hessian of an input of {len(hessian)} columns cannot be inverted; take more "
        f"calibration tokens or a damping above {damping} (damping in params of a recipe)"
    )
