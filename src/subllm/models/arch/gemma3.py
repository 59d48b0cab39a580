"""Gemma 3, text part: four norms a block, q and k normed, five sliding layers in six
with a rotary base of their own."""

from __future__ import annotations

from collections.abc import Mapping

from subllm.errors import WeightsError
from subllm.models.arch.config import Config, positive, rope_from
from subllm.models.arch.gemma import tanh_gelu
from subllm.models.arch.spec import ArchSpec, RopeScaling

GLOBAL_THETA = 1_000_000.0
LOCAL_THETA = 10_000.0


def spec(config: Config) -> ArchSpec:
    hidden = config.size("hidden_size", 2304)
    layers = config.layers(26)
    attention_bias = config.flag("attention_bias", False)
    theta, local_theta, scaling = _rope(config)
    every = config.size("sliding_window_pattern", 6)
    sliding = config.sliding_layers(layers) or tuple((i + 1) % every != 0 for i in range(layers))
    if config.flag("use_bidirectional_attention", False):
        raise WeightsError("bidirectional attention is not supported; use a causal checkpoint")
    return ArchSpec(
        family="gemma3",
        hidden_size=hidden,
        intermediate_size=config.size("intermediate_size", 9216),
        num_layers=layers,
        num_heads=config.size("num_attention_heads", 8),
        num_kv_heads=config.size("num_key_value_heads", 4),
        head_dim=config.size("head_dim", 256),
        vocab_size=config.size("vocab_size", 262_208),
        context_length=config.size("max_position_embeddings", 131_072),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        norm_offset=1.0,
        activation=tanh_gelu(config, "hidden_activation"),
        qkv_bias=attention_bias,
        o_bias=attention_bias,
        qk_norm=True,
        post_norms=True,
        rope_theta=theta,
        local_rope_theta=local_theta,
        rope_scaling=scaling,
        sliding_window=config.size("sliding_window", 4096),
        sliding_layers=sliding,
        attn_scale=config.number("query_pre_attn_scalar", 256.0) ** -0.5,
        attn_softcap=config.optional_number("attn_logit_softcapping"),
        final_softcap=config.optional_number("final_logit_softcapping"),
        embed_scale=hidden**0.5,
        tied_head=config.flag("tie_word_embeddings", True),
    )


def _rope(config: Config) -> tuple[float, float, RopeScaling | None]:
    """(base of full layers, base of sliding layers, scaling of full layers)."""
    theta = config.number("rope_theta", GLOBAL_THETA)
    local = config.number("rope_local_base_freq", LOCAL_THETA)
    context = config.size("max_position_embeddings", 131_072)
    nested = config.get("rope_parameters")
    if nested is None:
        scaling = config.get("rope_scaling")
        if scaling is None:
            return theta, local, None
        return theta, local, rope_from(scaling, theta, context)[1]
    if not isinstance(nested, Mapping):
        raise WeightsError(f"rope_parameters {nested!r} in the model's config are not a mapping")
    full, sliding = nested.get("full_attention") or {}, nested.get("sliding_attention") or {}
    theta, full_scaling = rope_from(full, theta, context)
    local, local_scaling = rope_from(sliding, local, context)
    if local_scaling is not None:
        raise WeightsError("rope scaling on sliding layers is not supported")
    return theta, positive("rope_theta", local, LOCAL_THETA), full_scaling
