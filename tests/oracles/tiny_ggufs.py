"""Tiny models as GGUF files, written with the gguf package as its converter does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import transformers

from oracles.tiny_models import CONFIGS

ARCHS = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "gemma": gguf.MODEL_ARCH.GEMMA,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
    "starcoder2": gguf.MODEL_ARCH.STARCODER2,
}


def _gemma3() -> Any:
    """What a GGUF can tell: the fixed pattern of layers, the scale of the head size."""
    return transformers.Gemma3TextConfig(
        vocab_size=264,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=7,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        head_dim=16,
        sliding_window=6,
        query_pre_attn_scalar=16,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    )


def _wide() -> Any:
    """Rows of 256 columns, whole blocks of k-quants."""
    config = CONFIGS["llama"]()
    config.hidden_size = config.intermediate_size = 256
    config.head_dim = 256 // config.num_attention_heads
    return config


# Families that a GGUF describes fully.
MODELS: dict[str, Callable[[], Any]] = {
    **{
        name: CONFIGS[name]
        for name in (
            "llama", "llama_biases", "llama_linear_rope", "mistral", "qwen2", "gemma", "starcoder2",
        )
    },
    "gemma3": _gemma3,
    "llama_wide": _wide,
}  # fmt: skip

Tensors = dict[str, npt.NDArray[Any]]


def state(family: str) -> tuple[dict[str, Any], Tensors]:
    """(config, float32 tensors by checkpoint name) of a random model."""
    config = MODELS[family]()
    model = transformers.AutoModelForCausalLM.from_config(config).float()
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.standard_normal(tuple(value.shape)).astype(np.float32)
        for name, value in model.state_dict().items()
        if not (name == "lm_head.weight" and config.tie_word_embeddings)
    }
    return config.to_dict(), tensors


def converted(config: dict[str, Any], tensors: Tensors) -> Tensors:
    """What the converter of llama.cpp writes for them: its names, its values."""
    kind = config["model_type"]
    names = gguf.get_tensor_name_map(ARCHS[kind], config["num_hidden_layers"])
    out = {}
    for name, value in tensors.items():
        if kind in ("llama", "mistral") and (".q_proj." in name or ".k_proj." in name):
            key = "num_attention_heads" if ".q_proj." in name else "num_key_value_heads"
            heads, rest = config[key], value.shape[1:]
            halves = value.reshape(heads, 2, value.shape[0] // heads // 2, *rest)
            value = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(value.shape))
        if kind in ("gemma", "gemma3_text") and name.endswith("norm.weight"):
            value = value + np.float32(1)
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert target is not None, name
        out[target] = value
    return out


def metadata(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    kind = config["model_type"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    if config.get("head_dim"):
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    if kind == "starcoder2":
        writer.add_layer_norm_eps(config["norm_epsilon"])
    else:
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if kind in ("mistral", "starcoder2", "gemma3_text"):
        writer.add_sliding_window(config["sliding_window"])
    rope = config["rope_parameters"]
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def byte_tokenizer(writer: gguf.GGUFWriter) -> None:
    """259 tokens, two merges, and padding up to the vocabulary."""
    from subllm.models.text.token_bytes import byte_alphabet

    letters = {code: letter for letter, code in byte_alphabet().items()}
    tokens = [letters[code] for code in range(256)] + ["ab", "abc", "<|end|>", "<|fim|>"]
    kinds = [1] * 258 + [3, 4]
    tokens += [f"[PAD{i}]" for i in range(264 - len(tokens))]
    kinds += [5] * (264 - len(kinds))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["a b", "ab c"])
    writer.add_eos_token_id(258)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")


def _q4_k(value: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    rows, cols = value.shape
    rng = np.random.default_rng(rows)
    blocks = rng.integers(0, 256, (rows, cols // 256, 144), np.uint8)
    halves = rng.uniform(1e-4, 1e-3, (rows, cols // 256, 2)).astype(np.float16)
    blocks[:, :, :4] = halves.view(np.uint8)
    return blocks.reshape(rows, -1)


def write_gguf(
    path: Path,
    family: str = "llama",
    *,
    change: Callable[[Tensors], Any] = lambda tensors: None,
    extra: Callable[[gguf.GGUFWriter], Any] = byte_tokenizer,
    kinds: dict[str, str] | None = None,
) -> Tensors:
    """Writes the file; returns the checkpoint's tensors.

    change  may alter the converted tensors by GGUF name
    extra   adds metadata
    kinds   GGML type by a part of the GGUF name, F32 otherwise; Q4_K tensors hold random
            blocks, since the package cannot quantize to it
    """
    config, tensors = state(family)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[ARCHS[config["model_type"]]])
    metadata(writer, config)
    extra(writer)
    files = converted(config, tensors)
    change(files)
    for name, value in files.items():
        kind = next((k for part, k in (kinds or {}).items() if part in name), "F32")
        ggml = gguf.GGMLQuantizationType[kind]
        raw = _q4_k(value) if kind == "Q4_K" else gguf.quants.quantize(value, ggml)
        writer.add_tensor(name, raw, raw_dtype=ggml)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors
