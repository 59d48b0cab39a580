"""Loads a WeightSource into torch tensors, a few megabytes at a time.

Matrices that read the same input are stacked (q, k, v and gate, up), so that one
product serves them. Matrices shared by several models (embedding, head) are kept once
per process for as long as any model uses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any
from weakref import WeakValueDictionary

import torch
from accelerate import cpu_offload
from torch import nn

from subllm.engine.backends.torch.linear import Linear, linear
from subllm.engine.placement import Form
from subllm.engine.weights import WeightSource
from subllm.errors import WeightsError
from subllm.models.arch.spec import ArchSpec, LinearSpec

_SLICE_ELEMENTS = 4 << 20  # float32 elements read at once: 16 MiB
_shared: WeakValueDictionary[tuple[str, str, str], torch.Tensor] = WeakValueDictionary()


@dataclass(frozen=True)
class Norm:
    """weight float32 [size], the spec's offset added; bias for LayerNorm."""

    weight: torch.Tensor
    bias: torch.Tensor | None


@dataclass(frozen=True)
class Layer:
    """One block. `up` holds gate and up stacked where the MLP is gated.

    qk_norm: float32 [heads + kv_heads, head_dim], q's weight repeated, then k's.
    """

    input_norm: Norm
    qkv: Linear
    qk_norm: torch.Tensor | None
    out: Linear
    post_attention_norm: Norm | None
    mlp_norm: Norm
    up: Linear
    down: Linear
    post_mlp_norm: Norm | None

    @property
    def nbytes(self) -> int:
        """Bytes of the matrices."""
        return sum(linear.nbytes for linear in (self.qkv, self.out, self.up, self.down))


class Held(nn.Module):
    """A block of plain matrices that waits in the CPU's memory: calling it gives a copy on the
    device, made by accelerate, which is gone when the caller drops it."""

    def __init__(self, layer: Layer, device: torch.device) -> None:
        super().__init__()
        self._layer = layer
        for part in fields(layer):
            for name, tensor in _tensors(part.name, getattr(layer, part.name)).items():
                self.register_buffer(name, tensor)
        cpu_offload(self, execution_device=device, offload_buffers=True)

    @property
    def nbytes(self) -> int:
        return self._layer.nbytes

    def forward(self) -> Layer:
        return replace(self._layer, **{part.name: self._here(part.name) for part in fields(Layer)})

    def _here(self, name: str) -> Any:
        part = getattr(self._layer, name)
        here = {key: self.get_buffer(key) for key in _tensors(name, part)}
        if part is None or isinstance(part, torch.Tensor):
            return here.get(name)
        return replace(part, **{key.removeprefix(f"{name}_"): here[key] for key in here})


def _tensors(name: str, part: Any) -> dict[str, torch.Tensor]:
    """Of a norm, a product or a tensor, each by a name of its own."""
    if isinstance(part, torch.Tensor):
        return {name: part}
    parts = {} if part is None else {"weight": part.weight, "bias": part.bias}
    return {f"{name}_{key}": tensor for key, tensor in parts.items() if tensor is not None}


@dataclass(frozen=True)
class Weights:
    embedding: torch.Tensor
    head: torch.Tensor
    final_norm: Norm
    layers: tuple[Layer | Held, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all matrices, a tied head counted once."""
        seen = {id(t): t for t in (self.embedding, self.head)}
        return sum(t.nbytes for t in seen.values()) + sum(layer.nbytes for layer in self.layers)


class _Loader:
    def __init__(
        self, source: WeightSource, dtype: torch.dtype, device: torch.device, form: Form
    ) -> None:
        self.source, self.spec = source, source.spec
        self.dtype, self.device, self.form = dtype, device, form

    def vector(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor(self.source.vector(name), dtype=dtype).to(self.device)

    def norm(self, name: str) -> Norm:
        weight = self.vector(f"{name}.weight", torch.float32) + self.spec.norm_offset
        bias = self.vector(f"{name}.bias", torch.float32) if self.spec.norm_bias else None
        return Norm(weight, bias)

    def fill(self, target: torch.Tensor, name: str) -> None:
        """Reads matrix `name` into `target` [out, in] by slices of rows."""
        step = max(1, _SLICE_ELEMENTS // target.shape[1])
        for start in range(0, target.shape[0], step):
            stop = min(start + step, target.shape[0])
            rows = self.source.rows(name, start, stop)
            if rows.shape != (stop - start, target.shape[1]):
                raise WeightsError(
                    f"{name} has rows of shape {rows.shape}, the architecture wants "
                    f"{(stop - start, target.shape[1])}; extract or add the model again"
                )
            target[start:stop].copy_(torch.from_numpy(rows))

    def linear(self, prefix: str, parts: Sequence[LinearSpec]) -> Linear:
        """One product for matrices that read the same input."""
        sizes = [part.out_features for part in parts]
        weight = torch.empty(sum(sizes), parts[0].in_features, dtype=self.dtype, device=self.device)
        for part, target in zip(parts, torch.split(weight, sizes), strict=True):
            self.fill(target, f"{prefix}{part.name}.weight")
        bias = None
        if parts[0].bias:
            bias = torch.cat([self.vector(f"{prefix}{p.name}.bias", self.dtype) for p in parts])
        return linear(weight, bias, self.form)

    def shared(self, name: str) -> torch.Tensor:
        """A [vocab, hidden] matrix, taken from another loaded model where equal."""
        key = self.source.cache_key(name)
        full_key = (key or "", str(self.dtype), str(self.device))
        found = _shared.get(full_key) if key else None
        if found is None:
            shape = (self.spec.vocab_size, self.spec.hidden_size)
            found = torch.empty(shape, dtype=self.dtype, device=self.device)
            self.fill(found, name)
            if key:
                _shared[full_key] = found
        return found

    def layer(self, index: int) -> Layer:
        spec, prefix = self.spec, self.spec.block_prefix(index)
        by_role = {linear.role: linear for linear in spec.linears}
        qk_norm = None
        if spec.qk_norm:
            q = self.norm(f"{prefix}self_attn.q_norm").weight
            k = self.norm(f"{prefix}self_attn.k_norm").weight
            qk_norm = torch.cat([q.expand(spec.num_heads, -1), k.expand(spec.num_kv_heads, -1)])
        second = self.norm(f"{prefix}post_attention_layernorm")
        return Layer(
            input_norm=self.norm(f"{prefix}input_layernorm"),
            qkv=self.linear(prefix, [by_role[role] for role in "qkv"]),
            qk_norm=qk_norm,
            out=self.linear(prefix, [by_role["o"]]),
            post_attention_norm=second if spec.post_norms else None,
            mlp_norm=self.norm(f"{prefix}pre_feedforward_layernorm") if spec.post_norms else second,
            up=self.linear(
                prefix, [by_role["gate"], by_role["up"]] if spec.gated else [by_role["up"]]
            ),
            down=self.linear(prefix, [by_role["down"]]),
            post_mlp_norm=self.norm(f"{prefix}post_feedforward_layernorm")
            if spec.post_norms
            else None,
        )


def load_weights(
    source: WeightSource,
    dtype: torch.dtype,
    device: torch.device,
    form: Form = "bf16",
    layers: int | None = None,
) -> Weights:
    """Everything, tensor by tensor; matrices of blocks in `form`, but for "packed", which is as
    "bf16". layers: blocks that stay on the device, the others wait in the CPU's memory; None:
    all. Raises WeightsError as `source` does, BackendError where a form wants a package."""
    spec: ArchSpec = source.spec
    loader = _Loader(source, dtype, device, form)
    beside = _Loader(source, dtype, torch.device("cpu"), form)
    kept = spec.num_layers if layers is None else layers
    embedding = loader.shared(spec.embedding_name)
    return Weights(
        embedding=embedding,
        head=embedding if spec.tied_head else loader.shared(spec.head_name),
        final_norm=loader.norm(spec.final_norm_name.removesuffix(".weight")),
        layers=tuple(
            loader.layer(index) if index < kept else Held(beside.layer(index), device)
            for index in range(spec.num_layers)
        ),
    )
