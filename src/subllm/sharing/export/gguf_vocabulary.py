"""A tokenizer as the metadata of a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import gguf
import tokenizers

from subllm.errors import UsageError
from subllm.models.catalog.prompt import FimSpec
from subllm.models.text.tokenizer import Tokenizer
from subllm.models.weights.gguf_pretokenizers import PRE_TOKENIZERS
from subllm.sharing.export.tokenizer_files import definition_of

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = (
    int(kind)
    for kind in (
        gguf.TokenType.NORMAL,
        gguf.TokenType.UNKNOWN,
        gguf.TokenType.CONTROL,
        gguf.TokenType.USER_DEFINED,
        gguf.TokenType.UNUSED,
        gguf.TokenType.BYTE,
    )
)
_NEVER = -1e9  # the score of what no merge makes

# Where the pre-tokenizers that GGUF names split differently. In this order, since several that
# have other names do the same.
_NAMES = ("qwen2", "llama-bpe", "starcoder", "deepseek-coder", "gpt-2")
_PROBE = (
    "def f_1(x):\n    return x**2 + 3456  # isn't IT'LL\r\n\r\n\t if (a!=b){c--;}\n\n\n"
    "  Ünïcode 日本語テキスト 한국어 عربى १२३ 🚀🚀 --- ...\u2028\xa0 $5,000.00 's 'T x  y   z "
)


def add_vocabulary(
    writer: gguf.GGUFWriter,
    tokenizer: Tokenizer,
    bundle: bytes,
    vocab_size: int,
    end_ids: tuple[int, ...],
    fim: FimSpec | None,
) -> None:
    """Tokens up to vocab_size, how texts become tokens, special ones, the chat template.

    Raises UsageError for a tokenizer that GGUF has no name for.
    """
    definition = definition_of(bundle)
    model = definition["model"]
    texts, kinds = _tokens(definition, vocab_size)
    if tokenizer.facts.byte_level:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_pre_tokenizer(definition))
        writer.add_token_list(texts)
        writer.add_token_types(kinds)
        writer.add_token_merges([" ".join(pair) for pair in _merges(model)])
    elif model.get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(texts)
        writer.add_token_scores(_scores(texts, _merges(model)))
        writer.add_token_types(kinds)
        writer.add_add_space_prefix(_adds_space(definition))
    else:
        raise UsageError("GGUF has no name for this tokenizer; use --format hf")
    _add_special(writer, tokenizer, model.get("unk_token"), end_ids, fim)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)


def _tokens(definition: dict[str, Any], vocab_size: int) -> tuple[list[str], list[int]]:
    model = definition["model"]
    texts = [f"[PAD{index}]" for index in range(vocab_size)]
    kinds = [_UNUSED] * vocab_size
    for text, index in model["vocab"].items():
        texts[index], kinds[index] = text, _NORMAL
        if model.get("byte_fallback") and _is_byte(text):
            kinds[index] = _BYTE
        if text == model.get("unk_token"):
            kinds[index] = _UNKNOWN
    for token in definition.get("added_tokens") or []:
        index = token["id"]
        texts[index] = token["content"]
        if kinds[index] != _UNKNOWN:
            kinds[index] = _CONTROL if token.get("special") else _USER
    return texts, kinds


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _merges(model: dict[str, Any]) -> list[list[str]]:
    """Both forms of `tokenizer.json`: "a b" and ["a", "b"]."""
    merges = model.get("merges") or []
    return [merge.split(" ") if isinstance(merge, str) else list(merge) for merge in merges]


def _scores(texts: list[str], merges: Iterable[list[str]]) -> list[float]:
    """SentencePiece joins the two neighbours whose whole has the highest score: a merge that
    comes earlier gives a higher one."""
    first: dict[str, float] = {}
    for rank, (left, right) in enumerate(merges):
        first.setdefault(left + right, -float(rank))
    return [first.get(text, _NEVER) for text in texts]


def _adds_space(definition: dict[str, Any]) -> bool:
    """Whether a text gets a space before it."""
    normalizer = json.dumps(definition.get("normalizer"))
    pre = json.dumps(definition.get("pre_tokenizer"))
    metaspace = '"Metaspace"' in pre and '"prepend_scheme": "never"' not in pre
    return '"Prepend"' in normalizer or metaspace


def _pre_tokenizer(definition: dict[str, Any]) -> str:
    """llama.cpp's name of what splits text before merging, found by what it does to a text."""
    wanted = _split(definition.get("pre_tokenizer"))
    for name in _NAMES:
        if _split(PRE_TOKENIZERS[name][1]) == wanted:
            return name
    raise UsageError(
        "this tokenizer splits text like none that GGUF has a name for "
        f"({', '.join(_NAMES)}); use --format hf"
    )


def _split(pre_tokenizer: Any) -> list[str]:
    empty = {"type": "BPE", "vocab": {}, "merges": []}
    probe = {"version": "1.0", "added_tokens": [], "pre_tokenizer": pre_tokenizer, "model": empty}
    made = tokenizers.Tokenizer.from_str(json.dumps(probe)).pre_tokenizer
    return [_PROBE] if made is None else [piece for piece, _ in made.pre_tokenize_str(_PROBE)]


def _add_special(
    writer: gguf.GGUFWriter,
    tokenizer: Tokenizer,
    unknown: str | None,
    end_ids: tuple[int, ...],
    fim: FimSpec | None,
) -> None:
    if tokenizer.bos_id is not None:
        writer.add_bos_token_id(tokenizer.bos_id)
    if end_ids:
        writer.add_eos_token_id(end_ids[0])
        writer.add_pad_token_id(end_ids[0])
    if unknown is not None and (unknown_id := tokenizer.id_of(unknown)) is not None:
        writer.add_unk_token_id(unknown_id)
    writer.add_add_bos_token(tokenizer.adds_bos)
    writer.add_add_eos_token(False)
    keys = gguf.Keys.Tokenizer
    markers = {} if fim is None else {
        keys.FIM_PRE_ID: fim.prefix,
        keys.FIM_SUF_ID: fim.suffix,
        keys.FIM_MID_ID: fim.middle,
        keys.FIM_REP_ID: fim.repo_name,
        keys.FIM_SEP_ID: fim.file_separator,
    }  # fmt: skip
    for key, text in markers.items():
        if text is not None and (token := tokenizer.id_of(text)) is not None:
            writer.add_uint32(key, token)
