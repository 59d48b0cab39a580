"""How byte-level vocabularies split text before merging, by the name that GGUF gives.

Each entry is (normalizer, pre_tokenizer) in the form of `tokenizer.json`.
"""

from __future__ import annotations

from typing import Any

_Json = dict[str, Any] | None

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def _bytes(use_regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _split(regex: str) -> dict[str, Any]:
    return {
        "type": "Split",
        "pattern": {"Regex": regex},
        "behavior": "Isolated",
        "invert": False,
    }


def _sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


_DIGITS = {"type": "Digits", "individual_digits": True}
_STARCODER = _sequence(_DIGITS, _bytes(True))

PRE_TOKENIZERS: dict[str, tuple[_Json, _Json]] = {
    "default": (None, _bytes(True)),
    "gpt-2": (None, _bytes(True)),
    "qwen2": ({"type": "NFC"}, _sequence(_split(_QWEN2), _bytes(False))),
    "llama-bpe": (None, _sequence(_split(_LLAMA3), _bytes(False))),
    "smollm": (None, _STARCODER),
    "starcoder": (None, _STARCODER),
    "refact": (None, _STARCODER),
    "deepseek-coder": (
        None,
        _sequence(
            _split(r"[\r\n]"),
            _split(r"\s?\p{L}+"),
            _split(r"\s?\p{P}+"),
            _split("[一-龥ࠀ-一가-\ud7ff]+"),
            _DIGITS,
            _bytes(False),
        ),
    ),
}
