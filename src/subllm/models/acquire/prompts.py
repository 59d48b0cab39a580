"""How to prompt a model that the catalog does not know, from its own files."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from subllm.models.arch.registry import spec_from_config
from subllm.models.catalog.prompt import FimSpec, PromptSpec

# The markers of known code models; a tokenizer that has all three was trained with them.
_MARKERS = (
    FimSpec(
        prefix="<|fim_prefix|>",
        suffix="<|fim_suffix|>",
        middle="<|fim_middle|>",
        file_separator="<|file_sep|>",
        repo_name="<|repo_name|>",
    ),
    FimSpec(
        prefix="<fim_prefix>",
        suffix="<fim_suffix>",
        middle="<fim_middle>",
        file_separator="<file_sep>",
        repo_name="<repo_name>",
    ),
    FimSpec(prefix="<｜fim▁begin｜>", suffix="<｜fim▁hole｜>", middle="<｜fim▁end｜>"),
    FimSpec(prefix="<|fim_begin|>", suffix="<|fim_hole|>", middle="<|fim_end|>"),
    FimSpec(prefix="▁<PRE>", suffix="▁<SUF>", middle="▁<MID>"),
)
# What ends a document or a turn in one family or another.
_ENDS = (
    "</s>",
    "<eos>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|EOT|>",
    "<｜end▁of▁sentence｜>",
    "▁<EOT>",
)


def guess_prompt(config: Mapping[str, Any], special: Collection[str]) -> PromptSpec:
    """`special` are the tokenizer's special tokens. Raises WeightsError for a bad config."""
    fim = next((f for f in _MARKERS if {f.prefix, f.suffix, f.middle} <= set(special)), None)
    stops = [token for token in _ENDS if token in special]
    if fim is not None:
        separators = {
            "file_separator": fim.file_separator if fim.file_separator in special else None,
            "repo_name": fim.repo_name if fim.repo_name in special else None,
        }
        fim = fim.model_copy(update=separators)
        stops += [m for m in (*separators.values(), fim.prefix, fim.suffix, fim.middle) if m]
    context = spec_from_config(config).context_length
    return PromptSpec(fim=fim, stop_tokens=tuple(stops), context_length=context)


def special_tokens(tokenizer_files: Mapping[str, bytes]) -> tuple[str, ...]:
    """The added tokens of `tokenizer.json`; empty where it is missing or malformed."""
    try:
        added = json.loads(tokenizer_files["tokenizer.json"])["added_tokens"]
        return tuple(str(token["content"]) for token in added)
    except (KeyError, ValueError, TypeError):
        return ()
