"""The Hugging Face config that a GGUF file's metadata describes."""

from __future__ import annotations

from typing import Any

import numpy as np

from subllm.errors import WeightsError
from subllm.models.arch.config import MAX_LAYERS, MAX_SIZE
from subllm.models.weights.gguf_file import GgufFile
from subllm.models.weights.gguf_names import ARCHITECTURES

_CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "starcoder2": "Starcoder2ForCausalLM",
}
_DEFAULT_THETA = {"gemma3_text": 1_000_000.0}
# The converter writes neither the base of Gemma 3's sliding layers nor their pattern.
GEMMA3_LOCAL_THETA = 10_000.0
GEMMA3_PATTERN = 6
_GEMMA3_27B_LAYERS = 62  # the one size whose attention scale is not head_dim ** -0.5


class Metadata:
    """The `<architecture>.*` keys of a file; raises WeightsError for missing ones."""

    def __init__(self, file: GgufFile) -> None:
        architecture = file.metadata.get("general.architecture")
        if architecture not in ARCHITECTURES:
            raise WeightsError(
                f"{file.path}: architecture {architecture!r} is not supported; "
                f"supported are {', '.join(ARCHITECTURES)}"
            )
        self.architecture: str = architecture
        self._file = file

    def get(self, key: str) -> Any:
        return self._file.metadata.get(f"{self.architecture}.{key}")

    def size(self, key: str, default: int | None = None, limit: int = MAX_SIZE) -> int:
        value = self.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= limit:
            raise WeightsError(
                f"{self._file.path}: {self.architecture}.{key} is {value!r}, "
                "not a valid size; fetch it again"
            )
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            raise WeightsError(
                f"{self._file.path}: {self.architecture}.{key} is {value!r}, "
                "not a positive number; fetch it again"
            )
        return float(str(np.float32(value)))  # 9.99999997e-07 was written as 1e-06


def config_from_gguf(file: GgufFile) -> dict[str, Any]:
    """A `config.json` that transformers builds the right model from.

    Raises WeightsError for an unsupported architecture or missing metadata.
    """
    meta = Metadata(file)
    kind = _model_type(meta)
    hidden, heads = meta.size("embedding_length"), meta.size("attention.head_count")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise WeightsError(f"{file.path} has no embedding matrix; fetch it again")
    head_dim = meta.size("attention.key_length", max(1, hidden // heads))
    if meta.size("rope.dimension_count", head_dim) != head_dim:
        raise WeightsError(
            f"{file.path}: rotary embeddings on part of a head are not supported; use another model"
        )
    config: dict[str, Any] = {
        "model_type": kind,
        "architectures": [_CLASSES[kind]],
        "dtype": "bfloat16",
        "hidden_size": hidden,
        "intermediate_size": meta.size("feed_forward_length"),
        "num_hidden_layers": meta.size("block_count", limit=MAX_LAYERS),
        "num_attention_heads": heads,
        "num_key_value_heads": meta.size("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "vocab_size": embedding.shape[0],
        "max_position_embeddings": meta.size("context_length"),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "rope_parameters": _rope(meta, kind),
    }
    _add_switches(config, meta, file)
    for key in ("bos", "eos"):
        token = file.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(token, int):
            config[f"{key}_token_id"] = token
    return config


def _model_type(meta: Metadata) -> str:
    """Mistral arrives as "llama"; only a sliding window tells the two apart."""
    if meta.architecture == "llama" and meta.get("attention.sliding_window"):
        return "mistral"
    return "gemma3_text" if meta.architecture == "gemma3" else meta.architecture


def _add_switches(config: dict[str, Any], meta: Metadata, file: GgufFile) -> None:
    kind = config["model_type"]
    if kind == "starcoder2":
        config["norm_epsilon"] = meta.number("attention.layer_norm_epsilon")
        config["use_bias"] = "blk.0.attn_q.bias" in file.tensors
        config["hidden_act"] = "gelu_pytorch_tanh"
    else:
        config["rms_norm_eps"] = meta.number("attention.layer_norm_rms_epsilon")
    if kind in ("llama", "gemma", "gemma3_text"):
        config["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
    if kind == "llama":
        config["mlp_bias"] = "blk.0.ffn_up.bias" in file.tensors
    if kind == "qwen2":
        config["use_sliding_window"] = False
    if kind in ("mistral", "starcoder2"):
        window = meta.get("attention.sliding_window")
        config["sliding_window"] = meta.size("attention.sliding_window") if window else None
    if kind == "gemma":
        config["hidden_act"] = "gelu_pytorch_tanh"
    if kind == "gemma3_text":
        _add_gemma3(config, meta)


def gemma3_scalar(layers: int, head_dim: int, hidden: int, heads: int) -> int:
    """What q.k is divided by the root of, which a file does not tell."""
    return hidden // heads if layers == _GEMMA3_27B_LAYERS else head_dim


def _add_gemma3(config: dict[str, Any], meta: Metadata) -> None:
    layers = config["num_hidden_layers"]
    sizes = (config[k] for k in ("head_dim", "hidden_size", "num_attention_heads"))
    scalar = gemma3_scalar(layers, *sizes)
    config.update(
        hidden_activation="gelu_pytorch_tanh",
        query_pre_attn_scalar=scalar,
        sliding_window=meta.size("attention.sliding_window"),
        layer_types=[
            "sliding_attention" if (i + 1) % GEMMA3_PATTERN else "full_attention"
            for i in range(layers)
        ],
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
    )


def _rope(meta: Metadata, kind: str) -> dict[str, Any]:
    full: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": meta.number("rope.freq_base", _DEFAULT_THETA.get(kind, 10_000.0)),
    }
    scaling = meta.get("rope.scaling.type")
    if scaling is None and meta.get("rope.scale_linear"):  # files of 2023
        full.update(rope_type="linear", factor=meta.number("rope.scale_linear"))
    elif scaling == "linear":
        full.update(rope_type="linear", factor=meta.number("rope.scaling.factor"))
    elif scaling not in (None, "none"):
        full["rope_type"] = str(scaling)  # the registry refuses it by name
    if kind != "gemma3_text":
        return full
    local = meta.number("rope.freq_base_swa", GEMMA3_LOCAL_THETA)
    sliding = {"rope_type": "default", "rope_theta": local}
    return {"full_attention": full, "sliding_attention": sliding}
