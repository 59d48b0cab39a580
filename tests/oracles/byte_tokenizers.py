"""Tokenizers with a token for each byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from subllm.models.text.token_bytes import byte_alphabet


def definition(
    specials: Mapping[int, str],
    *,
    split: bool = False,
    merges: Sequence[str] = (),
) -> dict[str, Any]:
    """tokenizer.json: 256 bytes, one token for each of `merges` behind them, and `specials` by
    their ids. `split` cuts text into words first, as GPT-2 does."""
    letters = {code: letter for letter, code in byte_alphabet().items()}
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": split,
        "use_regex": split,
    }
    words = {letters[byte]: byte for byte in range(256)}
    words |= {merge.replace(" ", ""): 256 + index for index, merge in enumerate(merges)}
    flags = ("single_word", "lstrip", "rstrip", "normalized")
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": token, "content": text, "special": True, **dict.fromkeys(flags, False)}
            for token, text in specials.items()
        ],
        "pre_tokenizer": level,
        "decoder": level,
        "model": {"type": "BPE", "vocab": words, "merges": list(merges)},
    }
