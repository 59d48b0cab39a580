"""Tiny random models of every family, in transformers and as weight sources."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from oracles.byte_tokenizers import definition
from subllm.models.arch.registry import spec_from_config
from subllm.models.arch.spec import ArchSpec
from subllm.models.text.tokenizer import Tokenizer

VOCAB = 264

_SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}


def _llama(**extra: Any) -> Any:
    return transformers.LlamaConfig(**_SHAPE, **extra)


CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": _llama,
    "llama_linear_rope": lambda: _llama(
        rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    ),
    "llama3_rope": lambda: _llama(
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    ),
    "llama_biases": lambda: _llama(attention_bias=True, mlp_bias=True),
    "mistral": lambda: transformers.MistralConfig(**_SHAPE, sliding_window=7, head_dim=16),
    "qwen2": lambda: transformers.Qwen2Config(**{**_SHAPE, "tie_word_embeddings": True}),
    "gemma": lambda: transformers.GemmaConfig(
        **{**_SHAPE, "tie_word_embeddings": True}, head_dim=16
    ),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **{**_SHAPE, "tie_word_embeddings": True},
        head_dim=16,
        sliding_window=6,
        query_pre_attn_scalar=24,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    ),
    "gemma2": lambda: transformers.Gemma2Config(  # the one with soft caps
        **{**_SHAPE, "tie_word_embeddings": True},
        head_dim=16,
        sliding_window=6,
        query_pre_attn_scalar=16,
        attn_logit_softcapping=1.0,
        final_logit_softcapping=2.0,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "starcoder2": lambda: transformers.Starcoder2Config(
        **{**_SHAPE, "tie_word_embeddings": True}, sliding_window=9, use_bias=True
    ),
}


class MemorySource:
    """A `WeightSource` over the float32 state of a transformers model."""

    def __init__(
        self,
        spec: ArchSpec,
        tensors: dict[str, npt.NDArray[np.float32]],
        cache_key: str | None = None,
    ) -> None:
        self.spec, self.tensors, self._key = spec, tensors, cache_key

    def rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        return self.tensors[name][start:stop]

    def vector(self, name: str) -> npt.NDArray[np.float32]:
        return self.tensors[name]

    def cache_key(self, name: str) -> str | None:
        return self._key and f"{self._key}/{name}"

    def map(self, change: Callable[[Any], Any]) -> MemorySource:
        """The same model with every matrix changed."""
        changed = {k: change(t) if t.ndim == 2 else t for k, t in self.tensors.items()}
        return MemorySource(self.spec, changed)


def oracle(family: str, seed: int = 0, **changes: Any) -> Any:
    """A transformers model in float32 with weights large enough to tell errors.

    changes: attributes of the model's configuration.
    """
    config = CONFIGS[family]()
    for name, value in changes.items():
        setattr(config, name, value)
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.add_(torch.randn_like(parameter) * 0.2)
            else:
                parameter.copy_(torch.randn_like(parameter) * 0.15)
    return model


def source(model: Any) -> MemorySource:
    """The model's weights under its architecture."""
    state = {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}
    config = model.config.to_dict()
    if config["model_type"] != "gemma2":
        return MemorySource(spec_from_config(config), state)
    # No family of ours, but Gemma 3 without q and k norms shows that soft caps work.
    spec = spec_from_config({**config, "model_type": "gemma3_text", "rope_parameters": None})
    return MemorySource(dataclasses.replace(spec, qk_norm=False, rope_theta=10000.0), state)


END, MARK, FILL = 256, 257, 258


def tokenizer() -> Tokenizer:
    """One token for each byte, then END (eos), MARK and FILL (special): 259 in all."""
    tokens = definition({END: "<|end|>", MARK: "<|mark|>", FILL: "<|fill|>"})
    return Tokenizer.from_files(
        {
            "tokenizer.json": json.dumps(tokens).encode(),
            "tokenizer_config.json": b'{"eos_token": "<|end|>"}',
        }
    )
