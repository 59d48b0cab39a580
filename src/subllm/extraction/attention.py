"""Causal attention on a CPU for short sequences in half precision.

The fused kernel of torch is slow there, and transformers' plain one rounds scores to
bf16 before the softmax. This one keeps scores in float32, as the fused kernel does, and
takes the queries in slices, so that masked halves are not computed and a slice's scores
stay in cache.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

NAME = "subllm_sliced"
_SLICE = 128  # query rows


def sliced_attention(
    module: nn.Module,
    query: torch.Tensor,  # [batch, heads, length, dim]
    key: torch.Tensor,  # [batch, kv_heads, length, dim]
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # added to scores, [batch or 1, 1, length, length]
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface. Returns [batch, length, heads, dim] in the type
    of `value`. The mask must be causal; None is plainly causal."""
    batch, heads, length, dim = query.shape
    kv_heads = key.shape[1]
    scale = dim**-0.5 if scaling is None else scaling
    # Heads that share keys and values are rows of one product.
    grouped = (query.float() * scale).reshape(batch * kv_heads, heads // kv_heads, length, dim)
    keys = key.float().reshape(batch * kv_heads, length, dim)
    values = value.reshape(batch * kv_heads, length, dim)
    out = torch.empty(
        batch * kv_heads, heads // kv_heads, length, dim, dtype=value.dtype, device=value.device
    )
    for start in range(0, length, _SLICE):
        stop = min(start + _SLICE, length)
        rows = grouped[:, :, start:stop].reshape(batch * kv_heads, -1, dim)
        scores = torch.bmm(rows, keys[:, :stop].transpose(1, 2))
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        shaped = scores.view(batch, heads, stop - start, stop)
        if attention_mask is None:
            _mask_diagonal(shaped[..., start:])
        else:
            shaped += attention_mask[..., start:stop, :stop]
        weights = torch.softmax(scores, dim=-1).to(value.dtype)
        part = torch.bmm(weights, values[:, :stop])
        out[:, :, start:stop] = part.view(batch * kv_heads, -1, stop - start, dim)
    return out.view(batch, heads, length, dim).transpose(1, 2), None


def _mask_diagonal(square: torch.Tensor) -> None:
    """In place: no query of a slice sees a later key of the same slice."""
    size = square.shape[-1]
    later = torch.ones(size, size, dtype=torch.bool, device=square.device).triu(1)
    square.masked_fill_(later, float("-inf"))


def register() -> str:
    """Make it known to transformers; returns its name there."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    AttentionInterface.register(NAME, sliced_attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    return NAME
