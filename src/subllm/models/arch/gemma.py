"""Gemma 1: norms stored as w and applied as 1 + w, embeddings scaled, head tied."""

from __future__ import annotations

from subllm.models.arch.config import Config
from subllm.models.arch.spec import Activation, ArchSpec


def tanh_gelu(config: Config, key: str) -> Activation:
    """The first releases say "gelu" and mean the tanh approximation."""
    activation = config.activation(key, "gelu_pytorch_tanh")
    return "gelu_tanh" if activation == "gelu" else activation


def spec(config: Config) -> ArchSpec:
    hidden = config.size("hidden_size")
    heads = config.size("num_attention_heads")
    theta, scaling = config.rope()
    attention_bias = config.flag("attention_bias", False)
    return ArchSpec(
        family="gemma",
        hidden_size=hidden,
        intermediate_size=config.size("intermediate_size"),
        num_layers=config.layers(),
        num_heads=heads,
        num_kv_heads=config.size("num_key_value_heads", heads),
        head_dim=config.size("head_dim", 256),
        vocab_size=config.size("vocab_size"),
        context_length=config.size("max_position_embeddings", 8192),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        norm_offset=1.0,
        activation=tanh_gelu(config, "hidden_act"),
        qkv_bias=attention_bias,
        o_bias=attention_bias,
        rope_theta=theta,
        rope_scaling=scaling,
        embed_scale=hidden**0.5,
        tied_head=config.flag("tie_word_embeddings", True),
    )
