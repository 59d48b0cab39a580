"""The Hugging Face `config.json` of an architecture: the reverse of `arch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from subllm.errors import WeightsError
from subllm.models.arch.spec import ArchSpec, RopeScaling

_ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}


def config_of(spec: ArchSpec) -> dict[str, Any]:
    """What `arch.registry.spec_from_config` makes this spec of, and transformers this model.

    Rotary parameters stand in the form of transformers 5 and in the older one. Raises
    WeightsError for a family that transformers does not know by this config.
    """
    if spec.family not in _FAMILIES:
        raise WeightsError(
            f"architecture {spec.family!r} cannot be exported; "
            f"known are {', '.join(sorted(_FAMILIES))}"
        )
    kind, name, extra = _FAMILIES[spec.family]
    return {
        "architectures": [name],
        "model_type": kind,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.num_kv_heads,
        "head_dim": spec.head_dim,
        "vocab_size": spec.vocab_size,
        "max_position_embeddings": spec.context_length,
        "tie_word_embeddings": spec.tied_head,
        "initializer_range": 0.02,
        "attention_dropout": 0.0,
        "use_cache": True,
        **_rope(spec),
        **extra(spec),
    }


def _rope(spec: ArchSpec) -> dict[str, Any]:
    scaling = _scaling(spec.rope_scaling)
    full = {"rope_type": "default", **(scaling or {}), "rope_theta": spec.rope_theta}
    older = {"rope_theta": spec.rope_theta, "rope_scaling": scaling}
    if spec.family != "gemma3":
        return {"rope_parameters": full, **older}
    local = spec.rope_theta if spec.local_rope_theta is None else spec.local_rope_theta
    sliding = {"rope_type": "default", "rope_theta": local}
    return {
        "rope_parameters": {"full_attention": full, "sliding_attention": sliding},
        "rope_local_base_freq": local,
        **older,
    }


def _scaling(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_context,
    }


def _rms(spec: ArchSpec) -> dict[str, Any]:
    return {"rms_norm_eps": spec.norm_eps, "hidden_act": _ACTIVATIONS[spec.activation]}


def _llama(spec: ArchSpec) -> dict[str, Any]:
    return {**_rms(spec), "attention_bias": spec.qkv_bias, "mlp_bias": spec.mlp_bias}


def _mistral(spec: ArchSpec) -> dict[str, Any]:
    return {**_rms(spec), "sliding_window": spec.sliding_window}


def _qwen2(spec: ArchSpec) -> dict[str, Any]:
    return {
        **_rms(spec),
        "use_sliding_window": spec.sliding_window is not None,
        "sliding_window": spec.sliding_window,
        "max_window_layers": next(
            (i for i, sliding in enumerate(spec.sliding_layers) if sliding), spec.num_layers
        ),
        "layer_types": _layer_types(spec),
    }


def _gemma(spec: ArchSpec) -> dict[str, Any]:
    activation = _ACTIVATIONS[spec.activation]
    return {
        **_rms(spec),
        "hidden_activation": activation,
        "attention_bias": spec.qkv_bias,
    }


def _gemma3(spec: ArchSpec) -> dict[str, Any]:
    scalar = spec.attn_scale**-2
    return {
        "rms_norm_eps": spec.norm_eps,
        "hidden_activation": _ACTIVATIONS[spec.activation],
        "attention_bias": spec.qkv_bias,
        # An integer in every model; the square of its root is off by a rounding.
        "query_pre_attn_scalar": round(scalar) if abs(scalar - round(scalar)) < 1e-6 else scalar,
        "sliding_window": spec.sliding_window,
        "layer_types": _layer_types(spec),
        "attn_logit_softcapping": spec.attn_softcap,
        "final_logit_softcapping": spec.final_softcap,
    }


def _starcoder2(spec: ArchSpec) -> dict[str, Any]:
    return {
        "norm_epsilon": spec.norm_eps,
        "hidden_act": _ACTIVATIONS[spec.activation],
        "use_bias": spec.qkv_bias,
        "sliding_window": spec.sliding_window,
        "embedding_dropout": 0.0,
        "residual_dropout": 0.0,
    }


def _layer_types(spec: ArchSpec) -> list[str]:
    return ["sliding_attention" if s else "full_attention" for s in spec.sliding_layers]


# Family -> (model_type, class, keys of its own).
_FAMILIES: dict[str, tuple[str, str, Callable[[ArchSpec], dict[str, Any]]]] = {
    "llama": ("llama", "LlamaForCausalLM", _llama),
    "mistral": ("mistral", "MistralForCausalLM", _mistral),
    "qwen2": ("qwen2", "Qwen2ForCausalLM", _qwen2),
    "gemma": ("gemma", "GemmaForCausalLM", _gemma),
    "gemma3": ("gemma3_text", "Gemma3ForCausalLM", _gemma3),
    "starcoder2": ("starcoder2", "Starcoder2ForCausalLM", _starcoder2),
}
