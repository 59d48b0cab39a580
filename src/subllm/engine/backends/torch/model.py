"""The forward pass of every supported family, driven by its ArchSpec."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from subllm.engine.backends.torch.attention import Span, attend, view
from subllm.engine.backends.torch.kv import KvSlab
from subllm.engine.backends.torch.rope import Rope, Rotation
from subllm.engine.backends.torch.weights import Held, Layer, Norm, Weights
from subllm.models.arch.spec import ArchSpec


class TorchModel:
    """Stateless apart from its weights: KV slabs come with each call."""

    def __init__(self, spec: ArchSpec, weights: Weights) -> None:
        self.spec, self.weights = spec, weights
        self._rope = Rope(spec, weights.embedding.device)

    def hidden(
        self, tokens: torch.Tensor, chunks: Sequence[tuple[KvSlab, int, int]]
    ) -> torch.Tensor:
        """Hidden states before the final norm, float32 [tokens, hidden].

        tokens: int64 of all chunks, concatenated. chunks: (slab, start, count) each;
        slabs grow as needed.
        """
        embedded = F.embedding(tokens, self.weights.embedding)
        spans = self._spans(chunks, embedded)
        # What is summed over all layers is summed in float32: bfloat16 would round it twice a
        # layer.
        x = embedded.float()
        if self.spec.embed_scale != 1.0:
            x = x * self.spec.embed_scale
        positions = torch.cat(
            [torch.arange(s.start, s.start + s.count, device=x.device) for s in spans]
        )
        rotations = self._rope.angles(positions)
        for index, held in enumerate(self.weights.layers):
            layer = held() if isinstance(held, Held) else held
            rotation = rotations[1] if self.spec.sliding_layers[index] else rotations[0]
            x = x + self._attention(index, layer, x, spans, rotation)
            x = x + self._mlp(layer, x)
        return x

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 [rows, vocab] of the given hidden states."""
        normed = self._norm(self.weights.final_norm, hidden)
        logits = F.linear(normed, self.weights.head).float()
        cap = self.spec.final_softcap
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def _spans(self, chunks: Sequence[tuple[KvSlab, int, int]], like: torch.Tensor) -> list[Span]:
        spans, offset = [], 0
        for slab, start, count in chunks:
            slab.ensure(start + count)
            full = sliding = view(start, count, None, like)
            if any(self.spec.sliding_layers):
                sliding = view(start, count, self.spec.sliding_window, like)
            spans.append(Span(offset, count, start, slab, full, sliding))
            offset += count
        return spans

    def _attention(
        self, index: int, layer: Layer, x: torch.Tensor, spans: list[Span], rotation: Rotation
    ) -> torch.Tensor:
        spec = self.spec
        qkv = layer.qkv(self._norm(layer.input_norm, x))
        qkv = qkv.view(len(x), spec.num_heads + 2 * spec.num_kv_heads, spec.head_dim)
        rotated = qkv[:, : spec.num_heads + spec.num_kv_heads]
        if layer.qk_norm is not None:
            rotated.copy_(_rms(rotated.float(), spec.norm_eps) * layer.qk_norm)
        rotation.apply_(rotated)
        parts = [
            attend(spec, index, span, qkv[span.offset : span.offset + span.count]) for span in spans
        ]
        out = layer.out(parts[0] if len(parts) == 1 else torch.cat(parts))
        return (
            out if layer.post_attention_norm is None else self._norm(layer.post_attention_norm, out)
        )

    def _mlp(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        inner = layer.up(self._norm(layer.mlp_norm, x))
        if self.spec.gated:
            gate, up = inner.chunk(2, dim=-1)
            inner = self._activate(gate) * up
        else:
            inner = self._activate(inner)
        out = layer.down(inner)
        return out if layer.post_mlp_norm is None else self._norm(layer.post_mlp_norm, out)

    def _activate(self, x: torch.Tensor) -> torch.Tensor:
        if self.spec.activation == "silu":
            return F.silu(x)
        approximate = "tanh" if self.spec.activation == "gelu_tanh" else "none"
        return F.gelu(x, approximate=approximate)

    def _norm(self, norm: Norm, x: torch.Tensor) -> torch.Tensor:
        if norm.bias is not None:
            shape = (x.shape[-1],)
            normed = F.layer_norm(x.float(), shape, norm.weight, norm.bias, self.spec.norm_eps)
        else:
            normed = _rms(x.float(), self.spec.norm_eps) * norm.weight
        return normed.to(self.weights.embedding.dtype)


def _rms(x: torch.Tensor, eps: float) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
