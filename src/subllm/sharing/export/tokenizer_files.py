"""The tokenizer of a stored model as the files that transformers reads."""

from __future__ import annotations

import json
from typing import Any

from subllm.models.text.tokenizer import Tokenizer
from subllm.models.text.tokenizer_files import starts_with_bos


def definition_of(bundle: bytes) -> dict[str, Any]:
    """The `tokenizer.json` inside what `Tokenizer.to_bundle` gave."""
    definition: dict[str, Any] = json.loads(json.loads(bundle)["tokenizer"])
    return definition


def hf_tokenizer_files(tokenizer: Tokenizer, bundle: bytes) -> dict[str, bytes]:
    """`tokenizer.json`, `tokenizer_config.json` and, where there is one, `chat_template.jinja`.

    The generic class reads the definition as it stands, so that texts get the ids that subllm
    gives them; whether a bos token comes first is made part of the definition, as that class
    looks nowhere else.
    """
    definition = definition_of(bundle)
    bos, add = tokenizer.bos_token, tokenizer.adds_bos
    if add and tokenizer.bos_id is not None:
        if not starts_with_bos(definition.get("post_processor"), bos):
            definition["post_processor"] = _bos_first(bos, tokenizer.bos_id)
    elif bos and starts_with_bos(definition.get("post_processor"), bos):
        definition["post_processor"] = None
    model = definition.get("model") or {}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos or None,
        "eos_token": tokenizer.eos_token or None,
        "unk_token": model.get("unk_token"),
        "pad_token": tokenizer.eos_token or None,
        "add_bos_token": add,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
    }
    config = {key: value for key, value in config.items() if value is not None}
    files = {
        "tokenizer.json": json.dumps(
            definition, ensure_ascii=False, separators=(",", ":")
        ).encode(),
        "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n",
    }
    if tokenizer.chat_template is not None:
        files["chat_template.jinja"] = tokenizer.chat_template.encode()
    return files


def _bos_first(text: str, token_id: int) -> dict[str, Any]:
    special = {"SpecialToken": {"id": text, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in ("A", "B"))
    return {
        "type": "TemplateProcessing",
        "single": [special, first],
        "pair": [special, first, second],
        "special_tokens": {text: {"id": text, "ids": [token_id], "tokens": [text]}},
    }
