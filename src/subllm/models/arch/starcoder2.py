"""StarCoder2: LayerNorm, biases everywhere, an MLP of two matrices."""

from __future__ import annotations

from subllm.models.arch.config import Config
from subllm.models.arch.spec import ArchSpec


def spec(config: Config) -> ArchSpec:
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    theta, scaling = config.rope()
    bias = config.flag("use_bias", True)
    return ArchSpec(
        family="starcoder2",
        hidden_size=hidden,
        intermediate_size=config.size("intermediate_size"),
        num_layers=config.layers(),
        num_heads=heads,
        num_kv_heads=config.size("num_key_value_heads", 2),
        head_dim=config.size("head_dim", hidden // heads),
        vocab_size=config.size("vocab_size"),
        context_length=config.size("max_position_embeddings", 4096),
        norm="layernorm",
        norm_eps=config.number("norm_epsilon", 1e-5),
        activation=config.activation("hidden_act", "gelu_pytorch_tanh"),
        gated=False,
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=bias,
        rope_theta=theta,
        rope_scaling=scaling,
        sliding_window=config.optional_size("sliding_window"),
        tied_head=config.flag("tie_word_embeddings", True),
    )
