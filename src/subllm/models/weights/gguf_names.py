"""GGUF tensor names <-> checkpoint names, and what the format does to the values."""

from __future__ import annotations

import re

_COMMON = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA3 = {
    **_COMMON,
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_STARCODER2 = {**_COMMON, "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"}
_BLOCK_NAMES = {
    "llama": _COMMON,
    "qwen2": _COMMON,
    "gemma": _COMMON,
    "gemma3": _GEMMA3,
    "starcoder2": _STARCODER2,
}
_TOP_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
ARCHITECTURES = tuple(_BLOCK_NAMES)

_BLOCK = re.compile(r"blk\.(\d{1,5})\.(\w+)\.(weight|bias)")
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_TOP = re.compile(r"(\w+)\.(weight|bias)")


def checkpoint_name(architecture: str, name: str) -> str | None:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`; None if unknown."""
    if match := _BLOCK.fullmatch(name):
        inner = _BLOCK_NAMES[architecture].get(match[2])
        return f"model.layers.{int(match[1])}.{inner}.{match[3]}" if inner else None
    if match := _TOP.fullmatch(name):
        outer = _TOP_NAMES.get(match[1])
        return f"{outer}.{match[2]}" if outer else None
    return None


def gguf_name(architecture: str, name: str) -> str:
    """The reverse of `checkpoint_name`, of a tensor that the architecture has."""
    stem, kind = name.rsplit(".", 1)
    if match := _LAYER.fullmatch(stem):
        inner = {outer: inner for inner, outer in _BLOCK_NAMES[architecture].items()}
        return f"blk.{match[1]}.{inner[match[2]]}.{kind}"
    top = {outer: inner for inner, outer in _TOP_NAMES.items()}
    return f"{top[stem]}.{kind}"


def is_permuted(architecture: str, name: str) -> bool:
    """Whether the converter interleaved the rotary halves of this tensor's rows."""
    return (architecture == "llama" and ".self_attn.q_proj." in name) or (
        architecture == "llama" and ".self_attn.k_proj." in name
    )


def is_shifted(architecture: str, name: str) -> bool:
    """Whether the converter added 1 to this tensor (every Gemma norm)."""
    return architecture in ("gemma", "gemma3") and name.endswith("norm.weight")
