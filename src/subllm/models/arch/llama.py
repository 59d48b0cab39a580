"""Llama and what shares its shape: Code Llama, DeepSeek Coder, SmolLM2."""

from __future__ import annotations

from subllm.models.arch.config import Config
from subllm.models.arch.spec import ArchSpec


def spec(config: Config) -> ArchSpec:
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    theta, scaling = config.rope()
    attention_bias = config.flag("attention_bias", False)
    return ArchSpec(
        family="llama",
        hidden_size=hidden,
        intermediate_size=config.size("intermediate_size"),
        num_layers=config.layers(),
        num_heads=heads,
        num_kv_heads=config.size("num_key_value_heads", heads),
        head_dim=config.size("head_dim", hidden // heads),
        vocab_size=config.size("vocab_size"),
        context_length=config.size("max_position_embeddings", 2048),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        activation=config.activation("hidden_act", "silu"),
        qkv_bias=attention_bias,
        o_bias=attention_bias,
        mlp_bias=config.flag("mlp_bias", False),
        rope_theta=theta,
        rope_scaling=scaling,
        tied_head=config.flag("tie_word_embeddings", False),
    )
