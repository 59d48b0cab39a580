"""A model's packed matrices on a device, as they lie in their file but for the order.

Matrices that read the same input are one product where their patterns and value types agree.
Matrices that models share are kept once per device for as long as any model uses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

import torch

from subllm.engine.backends.torch.weights import Norm
from subllm.engine.weights import LoadableWeights
from subllm.errors import LayoutError, WeightsError
from subllm.kernels.products.triton_ops import DevicePacked, expand, packed_matmul
from subllm.kernels.sparsity.concatenate import concatenate_rows
from subllm.models.arch.spec import ArchSpec, LinearSpec

_ROWS = 32  # of a packed matrix on a device are stored together
_shared: WeakValueDictionary[tuple[str, str], DevicePacked] = WeakValueDictionary()


@dataclass(frozen=True)
class Product:
    """One or more packed matrices that read the same input; their outputs lie side by side.
    bias: float32 [out] or None."""

    parts: tuple[DevicePacked, ...]
    bias: torch.Tensor | None

    @property
    def outputs(self) -> int:
        return sum(part.shape[0] for part in self.parts)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def __call__(
        self, x: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x [rows, in] -> out [rows, out], with `residual` added, which may be `out`."""
        start = 0
        for part in self.parts:
            piece = slice(start, start + part.shape[0])
            packed_matmul(
                x,
                part,
                bias=None if self.bias is None else self.bias[piece],
                residual=None if residual is None else residual[:, piece],
                out=out[:, piece],
            )
            start = piece.stop
        return out


@dataclass(frozen=True)
class Layer:
    """One block. `up` is gate and up where the MLP is gated; qk_norm as `rotate_and_store` takes
    it."""

    input_norm: Norm
    qkv: Product
    qk_norm: torch.Tensor | None
    out: Product
    post_attention_norm: Norm | None
    mlp_norm: Norm
    up: Product
    down: Product
    post_mlp_norm: Norm | None


@dataclass(frozen=True)
class Weights:
    embedding: DevicePacked
    head: DevicePacked
    final_norm: Norm
    layers: tuple[Layer, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all matrices, a tied head counted once."""
        ends = {id(end): end.nbytes for end in (self.embedding, self.head)}
        return sum(ends.values()) + sum(
            product.nbytes
            for layer in self.layers
            for product in (layer.qkv, layer.out, layer.up, layer.down)
        )

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """float32 [n, hidden]: rows of the embedding, for int64 tokens [n]."""
        count = len(tokens)
        ids = torch.nn.functional.pad(tokens, (0, -count % _ROWS))
        whole = self.embedding

        def rows(plane: torch.Tensor | None) -> torch.Tensor | None:
            return None if plane is None else plane.index_select(-1, ids)

        codes = rows(whole.codes)
        assert codes is not None
        return expand(
            replace(
                whole,
                shape=(count, whole.shape[1]),
                codes=codes,
                scales=rows(whole.scales),
                subscales=rows(whole.subscales),
            )
        )


class _Loader:
    def __init__(self, source: LoadableWeights, device: torch.device) -> None:
        self.source, self.spec, self.device = source, source.spec, device

    def vector(self, name: str) -> torch.Tensor:
        return torch.tensor(self.source.vector(name), dtype=torch.float32).to(self.device)

    def norm(self, name: str) -> Norm:
        weight = self.vector(f"{name}.weight") + self.spec.norm_offset
        return Norm(weight, self.vector(f"{name}.bias") if self.spec.norm_bias else None)

    def product(self, prefix: str, linears: Sequence[LinearSpec]) -> Product:
        tensors = []
        for linear in linears:
            name = f"{prefix}{linear.name}.weight"
            tensor = self.source.tensor(name)
            _check_shape(name, tensor.shape, (linear.out_features, linear.in_features))
            tensors.append(tensor)
        with suppress(LayoutError):  # they differ, or their rows do not fill tiles
            tensors = [concatenate_rows(tensors)]
        bias = None
        if linears[0].bias:
            bias = torch.cat([self.vector(f"{prefix}{linear.name}.bias") for linear in linears])
        return Product(tuple(DevicePacked.from_packed(t, self.device) for t in tensors), bias)

    def shared(self, name: str) -> DevicePacked:
        """A dense [vocab, hidden] matrix, taken from another loaded model where equal."""
        key = self.source.cache_key(name)
        full_key = (key or "", str(self.device))
        found = _shared.get(full_key) if key else None
        if found is None:
            tensor = self.source.tensor(name)
            _check_shape(name, tensor.shape, (self.spec.vocab_size, self.spec.hidden_size))
            if tensor.pattern != "dense":
                raise WeightsError(
                    f"{name} has pattern {tensor.pattern}, which a GPU does not look rows up in; "
                    "extract the model again, or choose cpu (--device or SUBLLM_DEVICE)"
                )
            found = DevicePacked.from_packed(tensor, self.device)
            if key:
                _shared[full_key] = found
        return found

    def layer(self, index: int) -> Layer:
        spec, prefix = self.spec, self.spec.block_prefix(index)
        role = {linear.role: linear for linear in spec.linears}
        qk_norm = None
        if spec.qk_norm:
            q = self.norm(f"{prefix}self_attn.q_norm").weight
            k = self.norm(f"{prefix}self_attn.k_norm").weight
            qk_norm = torch.cat([q.expand(spec.num_heads, -1), k.expand(spec.num_kv_heads, -1)])
        second = self.norm(f"{prefix}post_attention_layernorm")
        third = f"{prefix}pre_feedforward_layernorm"
        last = f"{prefix}post_feedforward_layernorm"
        return Layer(
            input_norm=self.norm(f"{prefix}input_layernorm"),
            qkv=self.product(prefix, _of(role, "qkv")),
            qk_norm=qk_norm,
            out=self.product(prefix, _of(role, "o")),
            post_attention_norm=second if spec.post_norms else None,
            mlp_norm=self.norm(third) if spec.post_norms else second,
            up=self.product(prefix, _of(role, ("gate", "up") if spec.gated else ("up",))),
            down=self.product(prefix, _of(role, ("down",))),
            post_mlp_norm=self.norm(last) if spec.post_norms else None,
        )


def _of(role: dict[str, LinearSpec], names: Iterable[str]) -> list[LinearSpec]:
    return [role[name] for name in names]


def _check_shape(name: str, shape: tuple[int, int], wanted: tuple[int, int]) -> None:
    if shape != wanted:
        raise WeightsError(
            f"{name} has shape {shape}, the architecture wants {wanted}; extract or add the "
            "model again"
        )


def load_weights(source: LoadableWeights, device: torch.device) -> Weights:
    """Everything, tensor by tensor. Raises WeightsError as `source` does, and for a tensor of
    another shape than the architecture wants."""
    spec: ArchSpec = source.spec
    loader = _Loader(source, device)
    embedding = loader.shared(spec.embedding_name)
    return Weights(
        embedding=embedding,
        head=embedding if spec.tied_head else loader.shared(spec.head_name),
        final_norm=loader.norm(spec.final_norm_name.removesuffix(".weight")),
        layers=tuple(loader.layer(index) for index in range(spec.num_layers)),
    )
