"""The forward pass on packed weights, by the operations of `kernels.triton_ops`.

It takes rows, each a token with its position, the place of its key and value and what it may
look at: so a row is the same whether it is a sequence that decodes, a guess to be checked or a
part of a prompt. Nothing in it waits for the device or depends on what tensors hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from subllm.engine.backend import KV_BLOCK
from subllm.engine.backends.cuda.kv import KvPool
from subllm.engine.backends.cuda.weights import Layer, Product, Weights
from subllm.engine.backends.torch.attention import attend_to, view
from subllm.engine.backends.torch.rope import Rope
from subllm.engine.backends.torch.weights import Norm
from subllm.kernels.products.triton.operands import KvPlanes, Rotation, Scores, SeenKeys
from subllm.kernels.products.triton_ops import (
    activate,
    norm,
    packed_matmul,
    paged_attention,
    rotate_and_store,
)
from subllm.models.arch.spec import ArchSpec


@dataclass(frozen=True)
class Rows:
    """tokens, positions, slots int64 [rows]; slots as `rotate_and_store` takes them."""

    tokens: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor


class Attention(Protocol):
    """Of one kind of step: queries [rows, heads, dim] -> the same, keys and values of the rows
    themselves being stored. window: how far back a layer looks; None: to the beginning."""

    def __call__(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        window: int | None,
    ) -> torch.Tensor: ...


@dataclass(frozen=True)
class PagedRows:
    """Every row looks at the first `lengths` positions of the blocks of its table; int32 [rows,
    blocks] and [rows]."""

    spec: ArchSpec
    tables: torch.Tensor
    lengths: torch.Tensor

    def __call__(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        window: int | None,
    ) -> torch.Tensor:
        return paged_attention(
            queries,
            KvPlanes(keys, values),
            SeenKeys(self.tables, self.lengths),
            Scores(self.spec.attn_scale, window, self.spec.attn_softcap),
        )


@dataclass(frozen=True)
class OneChunk:
    """All rows are one sequence from position `start` on, whose blocks are int64 [blocks]."""

    spec: ArchSpec
    blocks: torch.Tensor
    start: int

    def __call__(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        window: int | None,
    ) -> torch.Tensor:
        seen = view(self.start, len(queries), window, queries)
        first = seen.first // KV_BLOCK
        part = slice(seen.first - first * KV_BLOCK, seen.end - first * KV_BLOCK)
        k, v = (
            plane[self.blocks[first:]].flatten(0, 1)[part].transpose(0, 1)
            for plane in (keys, values)
        )
        return attend_to(self.spec, queries, k, v, seen.mask).view(queries.shape)


class PackedModel:
    """Stateless apart from its weights: the pool comes with each call."""

    def __init__(self, spec: ArchSpec, weights: Weights, dtype: torch.dtype) -> None:
        self.spec, self.weights, self.dtype = spec, weights, dtype
        device = weights.embedding.device
        rope = Rope(spec, device)
        every = torch.arange(spec.context_length, device=device)
        self._rotations = [(r.cos[:, 0], r.sin[:, 0]) for r in rope.angles(every)]

    def hidden(self, rows: Rows, pool: KvPool, attention: Attention) -> torch.Tensor:
        """Hidden states before the final norm, float32 [rows, hidden]."""
        x = self.weights.embed(rows.tokens)
        if self.spec.embed_scale != 1.0:
            x = x * self.spec.embed_scale
        for index, layer in enumerate(self.weights.layers):
            self._attend(index, layer, x, rows, pool, attention)
            self._mlp(layer, x)
        return x

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 [rows, vocab] of the given hidden states."""
        logits = packed_matmul(self._norm(self.weights.final_norm, hidden), self.weights.head)
        cap = self.spec.final_softcap
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def _attend(
        self,
        index: int,
        layer: Layer,
        x: torch.Tensor,
        rows: Rows,
        pool: KvPool,
        attention: Attention,
    ) -> None:
        spec = self.spec
        sliding = spec.sliding_layers[index]
        cos, sin = self._rotations[1 if sliding else 0]
        heads = spec.num_heads + 2 * spec.num_kv_heads
        qkv = layer.qkv(self._norm(layer.input_norm, x), self._new(x, layer.qkv.outputs))
        by_head = qkv.view(len(x), heads, spec.head_dim)
        keys, values = pool.keys[index], pool.values[index]
        rotate_and_store(
            by_head,
            rows.positions,
            rows.slots,
            Rotation(cos, sin, layer.qk_norm, spec.norm_eps),
            KvPlanes(keys, values),
        )
        window = spec.sliding_window if sliding else None
        out = attention(by_head[:, : spec.num_heads], keys, values, window)
        self._add(layer.out, out.reshape(len(x), -1), layer.post_attention_norm, x)

    def _mlp(self, layer: Layer, x: torch.Tensor) -> None:
        inner = layer.up(self._norm(layer.mlp_norm, x), self._new(x, layer.up.outputs))
        active = activate(inner, self.spec.activation, gated=self.spec.gated)
        self._add(layer.down, active, layer.post_mlp_norm, x)

    def _add(
        self, product: Product, inner: torch.Tensor, after: Norm | None, x: torch.Tensor
    ) -> None:
        """x += product(inner), normed where the family does that. What is summed over all layers
        is summed in float32."""
        if after is None:
            product(inner, x, x)
        else:
            x += self._norm(after, product(inner, self._new(x, x.shape[1])))

    def _norm(self, given: Norm, x: torch.Tensor) -> torch.Tensor:
        out = self._new(x, x.shape[1])
        return norm(x, given.weight, self.spec.norm_eps, bias=given.bias, out=out)

    def _new(self, like: torch.Tensor, columns: int) -> torch.Tensor:
        return torch.empty((len(like), columns), dtype=self.dtype, device=like.device)
