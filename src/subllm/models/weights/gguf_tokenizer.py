"""Tokenizer files rebuilt from the vocabulary that a GGUF file carries.

The result behaves as the original `tokenizer.json`: same ids, same splits, control
tokens recognised in text.
"""

from __future__ import annotations

import json
from typing import Any

from subllm.errors import WeightsError
from subllm.models.weights.gguf_file import GgufFile
from subllm.models.weights.gguf_pretokenizers import PRE_TOKENIZERS

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # of GGUF's token types
_SPACE = "\u2581"
_LONGEST_PIECE = 512  # characters; the search for merges is quadratic in them
# Whichever of these control tokens a vocabulary has ends a generation, beside its eos.
_END_TOKENS = (
    "<|endoftext|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<|EOT|>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "\u2581<EOT>",
)


class _Vocabulary:
    """Token texts and types of a file, checked for consistency."""

    def __init__(self, file: GgufFile) -> None:
        self.path = file.path
        self.metadata = file.metadata
        self.tokens: list[str] = self._list(file, "tokens")
        kinds = file.array("tokenizer.ggml.token_type")
        self.kinds: list[int] = kinds if kinds is not None else [_NORMAL] * len(self.tokens)
        if len(self.kinds) != len(self.tokens):
            raise WeightsError(f"{self.path}: token types and tokens differ in number")

    def _list(self, file: GgufFile, key: str) -> list[str]:
        values = file.array(f"tokenizer.ggml.{key}")
        if not values or not all(isinstance(v, str) for v in values):
            raise WeightsError(
                f"{file.path} carries no tokenizer ({key}); use the original checkpoint"
            )
        return values

    def pairs(self, file: GgufFile) -> list[list[str]]:
        """The merges that the file lists, as [left, right]."""
        pairs = [merge.split(" ") for merge in self._list(file, "merges")]
        if any(len(pair) != 2 for pair in pairs):
            raise WeightsError(f"{self.path}: a merge is not a pair of tokens; fetch it again")
        return pairs

    def text_of(self, key: str) -> str | None:
        """The token that `tokenizer.ggml.<key>` points to."""
        index = self.metadata.get(f"tokenizer.ggml.{key}")
        if not isinstance(index, int) or not 0 <= index < len(self.tokens):
            return None
        return self.tokens[index]

    def added(self, texts: list[str]) -> list[dict[str, Any]]:
        """Entries for tokens that are matched whole: control ones, and user-defined
        ones except runs of spaces, which merges build."""
        entries = []
        for index, kind in enumerate(self.kinds):
            text = texts[index]
            if kind == _CONTROL or (kind == _USER_DEFINED and text.strip(_SPACE)):
                entries.append(
                    {
                        "id": index,
                        "content": text,
                        "single_word": False,
                        "lstrip": False,
                        "rstrip": False,
                        "normalized": False,
                        "special": kind == _CONTROL,
                    }
                )
        return entries


def tokenizer_files(file: GgufFile) -> dict[str, bytes]:
    """`tokenizer.json`, `tokenizer_config.json` and `generation_config.json`.

    Raises WeightsError when the file carries no tokenizer or one of an unknown kind.
    """
    vocabulary = _Vocabulary(file)
    model = file.metadata.get("tokenizer.ggml.model")
    if model == "gpt2":
        tokenizer = _byte_level(file, vocabulary)
    elif model == "llama":
        tokenizer = _sentencepiece(file, vocabulary)
    else:
        raise WeightsError(
            f"{file.path}: tokenizer of type {model!r} is not supported; "
            "use the safetensors checkpoint"
        )
    return {
        "tokenizer.json": _dump(tokenizer),
        "tokenizer_config.json": _dump(_config(vocabulary, model)),
        "generation_config.json": _dump(_generation_config(vocabulary)),
    }


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _byte_level(file: GgufFile, vocabulary: _Vocabulary) -> dict[str, Any]:
    name = file.metadata.get("tokenizer.ggml.pre", "default")
    if name not in PRE_TOKENIZERS:
        raise WeightsError(
            f"{file.path}: pre-tokenizer {name!r} is not supported; "
            "use the safetensors checkpoint, which carries its own"
        )
    vocab = {
        token: index
        for index, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
        if kind != _UNUSED  # padding of the embedding matrix
    }
    normalizer, pre_tokenizer = PRE_TOKENIZERS[name]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": vocabulary.added(vocabulary.tokens),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": _bpe(vocab, vocabulary.pairs(file)),
    }


def _sentencepiece(file: GgufFile, vocabulary: _Vocabulary) -> dict[str, Any]:
    texts = [t if t.strip(" ") else _SPACE * len(t) for t in vocabulary.tokens]
    vocab = {token: index for index, token in enumerate(texts)}
    gemma = str(file.metadata.get("general.architecture")).startswith("gemma")
    prefix = file.metadata.get("tokenizer.ggml.add_space_prefix", not gemma)
    if file.array("tokenizer.ggml.merges") is not None:
        merges = vocabulary.pairs(file)
    else:
        scores = file.array("tokenizer.ggml.scores")
        if gemma or scores is None:  # Gemma's scores do not follow the order of its merges
            scores = [-float(index) for index in range(len(texts))]
        merges = _merges(texts, vocabulary.kinds, scores)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    normalizers = [{"type": "Prepend", "prepend": _SPACE}, replace] if prefix else [replace]
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": vocabulary.added(texts),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": _bpe(
            vocab,
            merges,
            unk_token=vocabulary.text_of("unknown_token_id"),
            fuse_unk=True,
            byte_fallback=True,
        ),
    }


def _bpe(vocab: dict[str, int], merges: list[list[str]], **switches: Any) -> dict[str, Any]:
    # The older form, one string a merge, loads faster but cannot hold spaces.
    spaced = any(" " in left or " " in right for left, right in merges)
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        **switches,
        "vocab": vocab,
        "merges": merges if spaced else [f"{left} {right}" for left, right in merges],
    }


def _merges(texts: list[str], kinds: list[int], scores: list[float]) -> list[list[str]]:
    """Every way to make one token out of two others, best score first.

    SentencePiece files list scores, not merges. Control, unused and byte tokens are
    left out: plain text must never merge into them.
    """
    if len(scores) != len(texts) or not all(isinstance(s, int | float) for s in scores):
        raise WeightsError("the file's token scores do not fit its tokens; fetch it again")
    ids = {
        text: index
        for index, text in enumerate(texts)
        if kinds[index] in (_NORMAL, _USER_DEFINED) and len(text) <= _LONGEST_PIECE
    }
    found: list[tuple[float, int, int, int, int, str, str]] = []
    for text, index in ids.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in ids and right in ids:
                found.append(
                    (-scores[index], -cut, cut - len(text), ids[left], ids[right], left, right)
                )
    found.sort()
    return [[left, right] for *_, left, right in found]


def _config(vocabulary: _Vocabulary, model: str) -> dict[str, Any]:
    metadata = vocabulary.metadata
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": bool(metadata.get("tokenizer.ggml.add_bos_token", model == "llama")),
        "add_eos_token": False,
    }
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        text = vocabulary.text_of(f"{key}_token_id")
        if text is not None:
            config[f"{name}_token"] = text
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        config["chat_template"] = template
    return config


def _generation_config(vocabulary: _Vocabulary) -> dict[str, Any]:
    eos = [vocabulary.metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot")]
    ends = [i for i in eos if isinstance(i, int) and 0 <= i < len(vocabulary.tokens)]
    ends += [
        index
        for index, (text, kind) in enumerate(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
        if kind == _CONTROL and text in _END_TOKENS
    ]
    return {"eos_token_id": list(dict.fromkeys(ends))}
