"""A decoder-only transformer as data: everything a forward pass must know.

One `ArchSpec` describes a whole model; `linears` lists the prunable matrices of a
block in the order in which they run. Names are those of the Hugging Face
checkpoints (`model.layers.3.self_attn.q_proj.weight`) for every family, whatever
file the weights come from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal

import pydantic

from subllm.errors import WeightsError

NormKind = Literal["rmsnorm", "layernorm"]
Activation = Literal["silu", "gelu", "gelu_tanh"]
_SIZES = (
    *("hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads"),
    *("head_dim", "vocab_size", "context_length"),
)
# Matrices of one group share their input, hence their calibration statistics.
InputGroup = Literal["attn_in", "o_in", "mlp_in", "down_in"]


@dataclass(frozen=True)
class LinearSpec:
    """One prunable matrix of a block: weight is [out_features, in_features]."""

    role: str  # q k v o gate up down
    name: str  # inside its block, without ".weight": "self_attn.q_proj"
    out_features: int
    in_features: int
    bias: bool
    group: InputGroup


@dataclass(frozen=True)
class RopeScaling:
    """Rotary frequency scaling; `kind` is "linear" or "llama3"."""

    __pydantic_config__: ClassVar = pydantic.ConfigDict(extra="forbid")

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@dataclass(frozen=True)
class ArchSpec:
    """Shapes and switches of one model. Sizes in elements, angles base `rope_theta`.

    norm_offset      added to the stored norm weight (Gemma stores w, applies 1 + w)
    embed_scale      multiplies the embedding output (Gemma: sqrt(hidden_size))
    attn_scale       multiplies q.k before softmax
    sliding_layers   for each layer, whether it attends to `sliding_window` tokens only
    local_rope_theta rotary base of the sliding layers where it differs (Gemma 3)
    qk_norm          RMSNorm over head_dim on q and k (weights self_attn.{q,k}_norm)
    post_norms       Gemma 3: norms after attention and after the MLP as well
                     (post_attention_layernorm, pre_feedforward_layernorm,
                     post_feedforward_layernorm)
    """

    __pydantic_config__: ClassVar = pydantic.ConfigDict(extra="forbid")

    family: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    context_length: int
    norm: NormKind = "rmsnorm"
    norm_eps: float = 1e-6
    norm_offset: float = 0.0
    activation: Activation = "silu"
    gated: bool = True
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    rope_theta: float = 10000.0
    local_rope_theta: float | None = None
    rope_scaling: RopeScaling | None = None
    sliding_window: int | None = None
    sliding_layers: tuple[bool, ...] = field(default=())
    attn_scale: float = 0.0  # 0 means head_dim ** -0.5
    attn_softcap: float | None = None
    final_softcap: float | None = None
    embed_scale: float = 1.0
    tied_head: bool = False

    def __post_init__(self) -> None:
        for name in _SIZES:
            if getattr(self, name) < 1:
                raise WeightsError(f"{name} of an architecture is {getattr(self, name)}, not 1 up")
        if not self.attn_scale:
            object.__setattr__(self, "attn_scale", self.head_dim**-0.5)
        if not self.sliding_layers:
            sliding = self.sliding_window is not None
            object.__setattr__(self, "sliding_layers", (sliding,) * self.num_layers)
        if len(self.sliding_layers) != self.num_layers:
            raise WeightsError(
                f"sliding_layers has {len(self.sliding_layers)} entries for "
                f"{self.num_layers} layers; the model's config is inconsistent"
            )
        if self.num_heads % self.num_kv_heads:
            raise WeightsError(
                f"{self.num_heads} attention heads are not a multiple of "
                f"{self.num_kv_heads} key-value heads; the model's config is inconsistent"
            )

    @property
    def linears(self) -> tuple[LinearSpec, ...]:
        """The prunable matrices of one block, in execution order."""
        hidden, inter = self.hidden_size, self.intermediate_size
        q_out, kv_out = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        attention = (
            LinearSpec("q", "self_attn.q_proj", q_out, hidden, self.qkv_bias, "attn_in"),
            LinearSpec("k", "self_attn.k_proj", kv_out, hidden, self.qkv_bias, "attn_in"),
            LinearSpec("v", "self_attn.v_proj", kv_out, hidden, self.qkv_bias, "attn_in"),
            LinearSpec("o", "self_attn.o_proj", hidden, q_out, self.o_bias, "o_in"),
        )
        if self.gated:
            return (
                *attention,
                LinearSpec("gate", "mlp.gate_proj", inter, hidden, self.mlp_bias, "mlp_in"),
                LinearSpec("up", "mlp.up_proj", inter, hidden, self.mlp_bias, "mlp_in"),
                LinearSpec("down", "mlp.down_proj", hidden, inter, self.mlp_bias, "down_in"),
            )
        return (
            *attention,
            LinearSpec("up", "mlp.c_fc", inter, hidden, self.mlp_bias, "mlp_in"),
            LinearSpec("down", "mlp.c_proj", hidden, inter, self.mlp_bias, "down_in"),
        )

    def matrices(self) -> dict[str, tuple[int, int]]:
        """[out_features, in_features] of all prunable matrices by full name, in execution
        order."""
        return {
            f"{self.block_prefix(layer)}{linear.name}.weight": (
                linear.out_features,
                linear.in_features,
            )
            for layer in range(self.num_layers)
            for linear in self.linears
        }

    @property
    def block_norms(self) -> tuple[str, ...]:
        """Names of a block's norms, without ".weight"."""
        names: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
        if self.post_norms:
            names += ("pre_feedforward_layernorm", "post_feedforward_layernorm")
        if self.qk_norm:
            names += ("self_attn.q_norm", "self_attn.k_norm")
        return names

    @property
    def norm_bias(self) -> bool:
        """Whether norms carry a bias (LayerNorm does, RMSNorm does not)."""
        return self.norm == "layernorm"

    def block_prefix(self, layer: int) -> str:
        return f"model.layers.{layer}."

    def block_vectors(self, layer: int) -> list[str]:
        """Full names of a block's one-dimensional tensors (norms and biases)."""
        prefix = self.block_prefix(layer)
        names = [f"{prefix}{n}.weight" for n in self.block_norms]
        if self.norm_bias:
            names += [f"{prefix}{n}.bias" for n in self.block_norms]
        names += [f"{prefix}{lin.name}.bias" for lin in self.linears if lin.bias]
        return names

    @property
    def embedding_name(self) -> str:
        return "model.embed_tokens.weight"

    @property
    def head_name(self) -> str:
        """The output matrix; the embedding itself where the two are tied."""
        return self.embedding_name if self.tied_head else "lm_head.weight"

    @property
    def final_norm_name(self) -> str:
        return "model.norm.weight"

    def block_params(self) -> int:
        """Prunable weights of one block."""
        return sum(lin.out_features * lin.in_features for lin in self.linears)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        data = asdict(self)
        data["sliding_layers"] = list(self.sliding_layers)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ArchSpec:
        """Raises WeightsError on unknown, missing or malformed fields."""
        try:
            return _stored().validate_json(json.dumps(data), strict=True)
        except (pydantic.ValidationError, TypeError) as error:
            raise WeightsError(f"a stored architecture is malformed: {_first(error)}") from error


@cache
def _stored() -> pydantic.TypeAdapter[ArchSpec]:
    return pydantic.TypeAdapter(ArchSpec)


def _first(error: Exception) -> str:
    if not isinstance(error, pydantic.ValidationError):
        return str(error)
    details = error.errors(include_url=False)[0]
    return f"{'.'.join(str(part) for part in details['loc'])}: {details['msg'].lower()}"
