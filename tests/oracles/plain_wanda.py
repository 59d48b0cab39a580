"""Wanda as its authors run it: the whole model in memory, hooks, one sample at a time.

Written from the paper (Sun et al. 2023, alg. 1), independent of the product's code. Used by
tests on tiny models and by the extraction benchmark as the yardstick.
"""

from __future__ import annotations

import contextlib

import torch
from torch import nn


class _RowNorms:
    """Running mean over samples of the squared norm of each input feature."""

    def __init__(self, columns: int, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.mean = torch.zeros(columns, dtype=dtype)
        self.samples = 0

    def __call__(self, module: nn.Module, args: tuple, output: object) -> None:
        x = args[0].reshape(-1, args[0].shape[-1]).t().to(self.dtype)
        self.mean *= self.samples / (self.samples + 1)
        self.samples += 1
        self.mean += torch.norm(x, p=2, dim=1) ** 2 / self.samples


def drop_mask(scores: torch.Tensor, ratio: float | None, n: int, m: int) -> torch.Tensor:
    """True where a weight goes: `ratio` of each row, or all but n of every m."""
    drop = torch.zeros_like(scores, dtype=torch.bool)
    if ratio is not None:
        order = torch.sort(scores, dim=-1, stable=True)[1]
        drop.scatter_(1, order[:, : int(scores.shape[1] * ratio)], True)
        return drop
    for column in range(0, scores.shape[1], m):
        order = torch.sort(scores[:, column : column + m], dim=1, stable=True)[1]
        drop.scatter_(1, column + order[:, : m - n], True)
    return drop


def linears_of(block: nn.Module) -> dict[str, nn.Linear]:
    return {n: m for n, m in block.named_modules() if isinstance(m, nn.Linear)}


def prune_block(
    block: nn.Module, norms: dict[str, _RowNorms], ratio: float | None, n: int, m: int
) -> dict[str, torch.Tensor]:
    kept = {}
    for name, linear in linears_of(block).items():
        scores = linear.weight.data.abs() * norms[name].mean.sqrt().reshape(1, -1)
        drop = drop_mask(scores, ratio, n, m)
        linear.weight.data[drop] = 0
        kept[name] = ~drop
    return kept


@torch.no_grad()
def prune_by_whole_forwards(
    model: nn.Module,
    tokens: torch.Tensor,
    ratio: float | None,
    n: int = 0,
    m: int = 0,
    first: int = 0,
) -> list[dict[str, torch.Tensor]]:
    """Masks (True kept) of every block from `first` on; each block's statistics come from
    running the whole model, all earlier blocks pruned. Quadratic in depth: for tiny models."""
    dtype = next(model.parameters()).dtype
    masks = []
    for block in model.model.layers[first:]:
        norms = {k: _RowNorms(v.in_features, dtype) for k, v in linears_of(block).items()}
        handles = [v.register_forward_hook(norms[k]) for k, v in linears_of(block).items()]
        for sample in tokens:
            model(sample[None], use_cache=False)
        for handle in handles:
            handle.remove()
        masks.append(prune_block(block, norms, ratio, n, m))
    return masks


class _Stop(Exception):
    pass


@torch.no_grad()
def prune_blockwise(
    model: nn.Module, tokens: torch.Tensor, ratio: float | None, n: int = 0, m: int = 0
) -> list[dict[str, torch.Tensor]]:
    """The same with the authors' schedule: inputs of the first block caught once, then two
    passes per block, sample by sample. For models whose blocks all get the same arguments."""
    blocks = model.model.layers
    inputs: list[torch.Tensor] = []
    kwargs: dict = {}

    def catch(module: nn.Module, args: tuple, named: dict) -> None:
        inputs.append(args[0] if args else named.pop("hidden_states"))
        kwargs.update(named)
        raise _Stop

    handle = blocks[0].register_forward_pre_hook(catch, with_kwargs=True)
    for sample in tokens:
        with contextlib.suppress(_Stop):
            model(sample[None], use_cache=False)
    handle.remove()

    masks = []
    for block in blocks:
        norms = {k: _RowNorms(v.in_features, torch.float32) for k, v in linears_of(block).items()}
        handles = [v.register_forward_hook(norms[k]) for k, v in linears_of(block).items()]
        for x in inputs:
            block(x, **kwargs)
        for handle in handles:
            handle.remove()
        masks.append(prune_block(block, norms, ratio, n, m))
        outputs = [block(x, **kwargs) for x in inputs]
        inputs = [o[0] if isinstance(o, tuple) else o for o in outputs]
    return masks
