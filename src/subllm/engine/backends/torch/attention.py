"""Attention of one chunk of queries over its KV slab."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from subllm.engine.backends.torch.kv import KvSlab
from subllm.models.arch.spec import ArchSpec


@dataclass(frozen=True)
class View:
    """Which keys a chunk sees in one kind of layer: positions first..end.

    mask: additive [count, end - first], or None where every query sees all of them.
    """

    first: int
    end: int
    mask: torch.Tensor | None


@dataclass(frozen=True)
class Span:
    """One chunk inside a step: rows offset..offset + count of the step's tokens."""

    offset: int
    count: int
    start: int
    slab: KvSlab
    full: View
    sliding: View


def view(start: int, count: int, window: int | None, like: torch.Tensor) -> View:
    """Keys visible to queries at positions start..start + count, of which each sees
    the last `window` up to its own; `like` gives dtype and device of the mask."""
    first = 0 if window is None else max(0, start - window + 1)
    end = start + count
    if count == 1:
        return View(first, end, None)
    queries = torch.arange(start, end, device=like.device)[:, None]
    keys = torch.arange(first, end, device=like.device)[None, :]
    hidden = keys > queries
    if window is not None:
        hidden |= keys <= queries - window
    mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
    return View(first, end, mask.masked_fill_(hidden, float("-inf")))


def attend(spec: ArchSpec, layer: int, span: Span, qkv: torch.Tensor) -> torch.Tensor:
    """Stores the chunk's keys and values and returns its output [count, heads * dim].

    qkv: [count, heads + 2 * kv_heads, dim], rotated, queries first.
    """
    kv_heads, slab = spec.num_kv_heads, span.slab
    queries, keys, values = torch.split(qkv, [spec.num_heads, kv_heads, kv_heads], dim=1)
    stop = span.start + span.count
    slab.keys[layer][:, span.start : stop] = keys.transpose(0, 1)
    slab.values[layer][:, span.start : stop] = values.transpose(0, 1)
    seen = span.sliding if spec.sliding_layers[layer] else span.full
    k = slab.keys[layer][:, seen.first : seen.end]
    v = slab.values[layer][:, seen.first : seen.end]
    return attend_to(spec, queries, k, v, seen.mask)


def attend_to(
    spec: ArchSpec,
    queries: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """[count, heads * dim] of queries [count, heads, dim] over k and v [kv_heads, keys, dim];
    mask as in `View`."""
    count, kv_heads, dim = len(queries), spec.num_kv_heads, spec.head_dim
    group = spec.num_heads // kv_heads
    k, v = k[:, None], v[:, None]
    if count == 1:
        # The heads of a group share keys, so they pass as so many queries.
        q = queries.reshape(kv_heads, 1, group, dim)
    else:
        q = queries.reshape(count, kv_heads, group, dim).permute(1, 2, 0, 3)
        k, v = k.expand(-1, group, -1, -1), v.expand(-1, group, -1, -1)
    if spec.attn_softcap is None:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=spec.attn_scale)
    else:
        out = _capped(q, k, v, mask, spec.attn_scale, spec.attn_softcap)
    if count > 1:
        out = out.permute(2, 0, 1, 3)
    return out.reshape(count, spec.num_heads * dim)


def _capped(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    cap: float,
) -> torch.Tensor:
    scores = torch.tanh(torch.matmul(q, k.transpose(-1, -2)).float() * (scale / cap)) * cap
    if mask is not None:
        scores = scores + mask
    return torch.matmul(scores.softmax(-1).to(v.dtype), v)
