"""From scores to a mask, on any device and in any float type."""

from __future__ import annotations

import torch

from subllm.kernels.sparsity import mask as packed_mask
from subllm.kernels.sparsity.pattern import Pattern


def choose(scores: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """Keep the best of each row (or of each group of M in a row).

    scores: float [rows, columns], not negative. Returns bool [rows, columns] on the
    scores' device. Equal scores drop the lower column. Raises PatternError.
    """
    rows, columns = scores.shape
    pattern.check(rows, columns)
    if scores.device.type == "cpu" and scores.dtype == torch.float32:
        return torch.from_numpy(packed_mask.select(scores.contiguous().numpy(), pattern))
    return choose_by_sorting(scores, pattern)


def choose_by_sorting(scores: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """`choose` as a stable ascending sort: the definition, and the way on a GPU."""
    rows, columns = scores.shape
    if pattern.kind == "dense":
        return torch.ones_like(scores, dtype=torch.bool)
    group = pattern.m if pattern.kind == "nm" else columns
    keep = pattern.n if pattern.kind == "nm" else pattern.kept_per_row(columns)
    return keep_highest(scores.reshape(-1, group), keep).reshape(rows, columns)


def keep_highest(scores: torch.Tensor, keep: int) -> torch.Tensor:
    """bool [rows, columns], True for the `keep` highest scores of each row; equal scores
    drop the lower column."""
    order = torch.sort(scores, dim=-1, stable=True).indices
    kept = torch.ones_like(scores, dtype=torch.bool)
    return kept.scatter_(-1, order[:, : scores.shape[1] - keep], False)
