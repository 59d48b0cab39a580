"""Qwen2 and Qwen2.5 (Coder): Llama's shape with biases on q, k and v."""

from __future__ import annotations

from subllm.models.arch.config import Config
from subllm.models.arch.spec import ArchSpec


def spec(config: Config) -> ArchSpec:
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    layers = config.layers()
    theta, scaling = config.rope()
    window = None
    if config.flag("use_sliding_window", False):
        window = config.optional_size("sliding_window")
    sliding: tuple[bool, ...] = (False,) * layers
    if window is not None:
        full = config.size("max_window_layers", 28, minimum=0)
        sliding = config.sliding_layers(layers) or tuple(i >= full for i in range(layers))
    return ArchSpec(
        family="qwen2",
        hidden_size=hidden,
        intermediate_size=config.size("intermediate_size"),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=config.size("num_key_value_heads", heads),
        head_dim=config.size("head_dim", hidden // heads),
        vocab_size=config.size("vocab_size"),
        context_length=config.size("max_position_embeddings", 32768),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        activation=config.activation("hidden_act", "silu"),
        qkv_bias=True,
        rope_theta=theta,
        rope_scaling=scaling,
        sliding_window=window,
        sliding_layers=sliding,
        tied_head=config.flag("tie_word_embeddings", False),
    )
