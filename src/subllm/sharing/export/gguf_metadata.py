"""What a GGUF file says of a model before its tensors."""

from __future__ import annotations

import gguf

from subllm.errors import UsageError
from subllm.models.arch.spec import ArchSpec
from subllm.models.weights.gguf_config import GEMMA3_LOCAL_THETA, GEMMA3_PATTERN, gemma3_scalar

_ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "gemma": "gemma",
    "gemma3": "gemma3",
    "starcoder2": "starcoder2",
}
_ACTIVATIONS = {"gemma": "gelu_tanh", "gemma3": "gelu_tanh", "starcoder2": "gelu_tanh"}


def architecture_of(spec: ArchSpec) -> str:
    """llama.cpp's name of the architecture.

    Raises UsageError for a model that llama.cpp would compute otherwise: a file cannot say
    everything that a config can.
    """
    name = _ARCHITECTURES.get(spec.family)
    problem = f"has no architecture {spec.family!r}" if name is None else _unlike(spec)
    if name is None or problem:
        raise UsageError(f"llama.cpp {problem}; use --format hf")
    return name


def _unlike(spec: ArchSpec) -> str:
    """What keeps llama.cpp from computing this model; "" where nothing does."""
    family = spec.family
    if spec.activation != _ACTIVATIONS.get(family, "silu"):
        return f"computes {family} with another activation than {spec.activation}"
    if family.startswith("gemma") and spec.qkv_bias:
        return f"knows no biases of {family}"
    if family == "starcoder2" and not (spec.qkv_bias and spec.mlp_bias):
        return "needs the biases of starcoder2"
    if family == "qwen2" and spec.sliding_window is not None:
        return "knows no sliding window of qwen2"
    if family != "gemma3":
        return ""
    pattern = tuple(bool((layer + 1) % GEMMA3_PATTERN) for layer in range(spec.num_layers))
    if spec.sliding_layers != pattern:
        return "knows Gemma 3 with every sixth layer attending to all, not with these"
    scalar = gemma3_scalar(spec.num_layers, spec.head_dim, spec.hidden_size, spec.num_heads)
    if abs(spec.attn_scale - scalar**-0.5) > 1e-6:
        return f"knows Gemma 3 without the attention scale {spec.attn_scale:g}"
    if spec.attn_softcap is not None or spec.final_softcap is not None:
        return "knows no soft caps of Gemma 3"
    return ""


def add_architecture(writer: gguf.GGUFWriter, spec: ArchSpec) -> None:
    writer.add_context_length(spec.context_length)
    writer.add_embedding_length(spec.hidden_size)
    writer.add_block_count(spec.num_layers)
    writer.add_feed_forward_length(spec.intermediate_size)
    writer.add_head_count(spec.num_heads)
    writer.add_head_count_kv(spec.num_kv_heads)
    writer.add_key_length(spec.head_dim)
    writer.add_value_length(spec.head_dim)
    writer.add_rope_dimension_count(spec.head_dim)
    writer.add_vocab_size(spec.vocab_size)
    if spec.norm == "layernorm":
        writer.add_layer_norm_eps(spec.norm_eps)
    else:
        writer.add_layer_norm_rms_eps(spec.norm_eps)
    if spec.sliding_window is not None:
        writer.add_sliding_window(spec.sliding_window)
    writer.add_rope_freq_base(spec.rope_theta)
    if spec.local_rope_theta not in (None, GEMMA3_LOCAL_THETA):
        writer.add_rope_freq_base_swa(spec.local_rope_theta)
    if spec.rope_scaling is not None and spec.rope_scaling.kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(spec.rope_scaling.factor)
