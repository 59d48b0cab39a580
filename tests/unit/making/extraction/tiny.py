"""Tiny random models of every family, as checkpoints on disk and as bases in a store."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

_COMMON: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 6},
    "qwen2": {"tie_word_embeddings": True},
    "gemma": {"head_dim": 32, "hidden_activation": "gelu_pytorch_tanh"},
    "gemma3_text": {
        "head_dim": 32,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "starcoder2": {"use_bias": True},
}


def tiny_model(family: str) -> PreTrainedModel:
    """Random weights; norms and biases are not left at one and zero."""
    torch.manual_seed(sum(map(ord, family)))
    config = AutoConfig.for_model(family, **_COMMON, **FAMILIES[family])
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
        elif "layers" in name:
            parameter.data = torch.randn_like(parameter) * 0.1
    return model.eval()


def tiny_tokenizer_json() -> bytes:
    """Bytes as tokens 3..258: enough for any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<pad>": 0, "<s>": 1, "</s>": 2, **{c: 3 + i for i, c in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<pad>", "<s>", "</s>"])
    return tokenizer.to_str().encode()


def save_checkpoint(model: PreTrainedModel, directory: Path) -> Path:
    """A Hugging Face checkpoint directory with a byte tokenizer."""
    model.save_pretrained(directory)
    (directory / "tokenizer.json").write_bytes(tiny_tokenizer_json())
    (directory / "tokenizer_config.json").write_text(
        '{"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": false}'
    )
    return directory


def digest_of(path: Path) -> str:
    return "sha256-" + hashlib.sha256(path.read_bytes()).hexdigest()
