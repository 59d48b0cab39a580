"""Tiny models in a store with a tokenizer that every format can hold, and what they should say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from oracles.byte_tokenizers import definition
from oracles.packed_models import PackedMemory, packed_oracle, store_model
from oracles.tiny_models import CONFIGS
from subllm.models.store.store import Store
from subllm.models.text.tokenizer import Tokenizer

# Families of the catalog, as llama.cpp knows them too: Gemma 3 with the pattern that it has.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama_linear_rope": ("llama_linear_rope", {}),
    "llama3_rope": ("llama3_rope", {}),
    "llama_biases": ("llama_biases", {}),
    "mistral": ("mistral", {"sliding_window": 256}),
    "qwen2": ("qwen2", {}),
    "gemma": ("gemma", {}),
    "gemma3": (
        "gemma3",
        {
            "num_hidden_layers": 7,
            "query_pre_attn_scalar": 16,
            "layer_types": ["sliding_attention"] * 5 + ["full_attention", "sliding_attention"],
        },
    ),
    "starcoder2": ("starcoder2", {"sliding_window": 256}),
}
# llama.cpp misreads rows of one block of 32 columns, whoever wrote them.
_WIDE = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
assert {of for of, _ in FAMILIES.values()} == set(CONFIGS) - {"gemma2"}

BOS, END, MIDDLE = 258, 259, 260
TEMPLATE = "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"


def bundle(add_bos: bool = False) -> bytes:
    """One token for each byte, two merges, three special tokens."""
    specials = {BOS: "<|begin|>", END: "<|end|>", MIDDLE: "<|middle|>"}
    tokens = definition(specials, split=True, merges=("a b", "ab c"))
    config = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "add_bos_token": add_bos}
    files = {
        "tokenizer.json": json.dumps(tokens).encode(),
        "tokenizer_config.json": json.dumps({**config, "chat_template": TEMPLATE}).encode(),
    }
    return Tokenizer.from_files(files).to_bundle()


def exportable(
    root: Path, family: str, values: str = "int8", pattern: str = "mixed", **config: Any
) -> tuple[Store, PackedMemory, Any]:
    """A store with the model `packed_models.NAME`, its packed weights, and a transformers model
    in float32 with exactly those."""
    of, changes = FAMILIES[family]
    packed, reference = packed_oracle(of, values, pattern, **{**_WIDE, **changes, **config})
    return store_model(root, packed, tokenizer_bundle=bundle()), packed, reference
