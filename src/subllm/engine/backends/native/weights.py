"""A model's packed tensors, named by their role, as the native decoder takes them.

Matrices are handed over where they lie, usually in a mapped file: nothing is copied but
the small vectors.
"""

from __future__ import annotations

from typing import Any

from subllm.engine.weights import PackedWeightSource, ScreenedWeightSource
from subllm.errors import WeightsError
from subllm.kernels import native
from subllm.kernels.products.ops import Matrix
from subllm.kernels.sparsity.screen import check_screen


class DecoderWeights:
    """`shared` and `layers` as `_native.Decoder` takes them; `nbytes` of all tensors;
    `integers`: whether all that are multiplied with are stored as integers."""

    def __init__(self, source: ScreenedWeightSource, *, screen: bool = True) -> None:
        """`screen`: with the head's screening plane, where there is one. Raises WeightsError
        for a tensor that is missing, damaged or of another shape than the architecture wants,
        LayoutError for a plane that was made of another head."""
        spec, tensors = source.spec, NamedTensors(source)
        embedding = tensors.matrix(spec.embedding_name, spec.vocab_size, spec.hidden_size)
        head = embedding
        if not spec.tied_head:
            head = tensors.matrix(spec.head_name, spec.vocab_size, spec.hidden_size)
        self.shared: dict[str, Any] = {"embedding": embedding, "head": head}
        found = source.screen(spec.head_name) if screen else None
        if found is not None:
            check_screen(found, source.tensor(spec.head_name), spec.head_name)
            self.shared["screen"] = native.core().Screen(
                *found.shape, found.codes, found.steps, found.columns
            )
            tensors.nbytes += found.nbytes
        tensors.norm(self.shared, "final_norm", spec.final_norm_name.removesuffix(".weight"))
        self.layers = [tensors.layer(index) for index in range(spec.num_layers)]
        self.nbytes = tensors.nbytes
        if not spec.tied_head:  # rows of an embedding of its own are looked up only
            tensors.values.pop(spec.embedding_name)
        self.integers = "bf16" not in tensors.values.values()


class NamedTensors:
    """Tensors of a source in the core's form; `nbytes` of all that were asked for, `values`:
    how each matrix is coded. Methods raise WeightsError as `DecoderWeights` does."""

    def __init__(self, source: PackedWeightSource) -> None:
        self._source, self._spec = source, source.spec
        self.nbytes = 0
        self.values: dict[str, str] = {}

    def layer(self, index: int) -> dict[str, Any]:
        """The matrices, norms and biases of a block, by their role."""
        spec, prefix = self._spec, self._spec.block_prefix(index)
        layer: dict[str, Any] = {}
        for linear in spec.linears:
            name = f"{prefix}{linear.name}"
            layer[linear.role] = self.matrix(
                f"{name}.weight", linear.out_features, linear.in_features
            )
            if linear.bias:
                layer[f"{linear.role}_bias"] = self.vector(f"{name}.bias", linear.out_features)
        self.norm(layer, "input_norm", f"{prefix}input_layernorm")
        second = f"{prefix}post_attention_layernorm"
        if spec.post_norms:
            self.norm(layer, "post_attention_norm", second)
            self.norm(layer, "mlp_norm", f"{prefix}pre_feedforward_layernorm")
            self.norm(layer, "post_mlp_norm", f"{prefix}post_feedforward_layernorm")
        else:
            self.norm(layer, "mlp_norm", second)
        if spec.qk_norm:
            for part in "qk":
                name = f"{prefix}self_attn.{part}_norm.weight"
                layer[f"{part}_norm"] = self.vector(name, spec.head_dim)
        return layer

    def norm(self, target: dict[str, Any], role: str, name: str) -> None:
        target[role] = self.vector(f"{name}.weight", self._spec.hidden_size)
        if self._spec.norm_bias:
            target[f"{role}_bias"] = self.vector(f"{name}.bias", self._spec.hidden_size)

    def vector(self, name: str, size: int) -> Any:
        vector = self._source.vector(name)
        if vector.shape != (size,):
            raise _misfit(name, vector.shape, (size,))
        self.nbytes += vector.nbytes
        return vector

    def matrix(self, name: str, rows: int, cols: int) -> Any:
        packed = self._source.tensor(name)
        if packed.shape != (rows, cols):
            raise _misfit(name, packed.shape, (rows, cols))
        self.nbytes += packed.nbytes
        self.values[name] = packed.values
        handle = Matrix(packed, name).handle
        self.nbytes += handle.relaid_bytes
        return handle


def _misfit(name: str, have: tuple[int, ...], want: tuple[int, ...]) -> WeightsError:
    return WeightsError(
        f"{name} has shape {have}, the architecture wants {want}; extract or add the model again"
    )
