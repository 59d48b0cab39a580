"""Small tokenizers of every kind, as GGUF files and as what they should equal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import tokenizers
from tokenizers import normalizers, pre_tokenizers
from transformers import Qwen2Tokenizer

from subllm.models.text.tokenizer import Tokenizer
from subllm.models.weights.gguf_file import GgufFile
from subllm.models.weights.gguf_tokenizer import tokenizer_files

CORPUS = [
    "def quick_sort(values: list[int]) -> list[int]:\n    return sorted(values)  # fast\n" * 4,
    "The quick brown fox isn't lazy; it'll jump over 1234 dogs, 56 cats and 7 cows.\n" * 4,
    "日本語のテキスト と 日本語 のテスト。 中文文本 中文\n" * 4,
    "    if (a == b) { return a->b + 10; }\r\n\t\t// café naïve 🚀 🚀\n\n\n" * 4,
]

TEXTS = [
    "", " ", "   ", "\n", "\t\n \n", "hello world", " hello  world ", "quick_sort(values)",
    "def f(x):\n    return x ** 2  # carré\n", "isn't IT'LL 's 'T we've", "1234567890 3.14 0x7f",
    "日本語のテキスト、中文，한국어", "👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 ☃️", "e\u0301 é ﬁ Å ß İ", "العربية עברית ไทย",
    "\x00\x01\x7f\xa0\u2028\ufeff\ufffd", "a\r\nb\r\n\r\n", "x" * 99, " " * 33 + "y", "\n" * 9,
    "𝔘𝔫𝔦 𐍈 \U0010ffff", "Ġhello Ċ <0x0A>", "<b>&amp;</b> --- === >>>", "$5,000.00 user@example.com",
    "<|end|>", "a<|end|>b", " <|end|> <|fim|>", "<|end|><|end|>", "<|en", "<|end|", "|end|>",
]  # fmt: skip

CONTROL, USER, UNUSED, BYTE = 3, 4, 5, 6
SPECIALS = [("<|end|>", CONTROL), ("<|fim|>", CONTROL)]


def train(
    pre: Any, normalizer: Any, alphabet: Sequence[str], **options: Any
) -> tokenizers.Tokenizer:
    oracle = tokenizers.Tokenizer(tokenizers.models.BPE(**options))
    if normalizer is not None:
        oracle.normalizer = normalizer
    if pre is not None:
        oracle.pre_tokenizer = pre
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600, show_progress=False, initial_alphabet=list(alphabet)
    )
    oracle.train_from_iterator(CORPUS, trainer)
    oracle.add_special_tokens([text for text, _ in SPECIALS])
    return oracle


def from_gguf(path: Path, metadata: dict[str, Any]) -> Tokenizer:
    """What we make of a file with this tokenizer metadata."""
    writer = gguf.GGUFWriter(path, metadata.pop("architecture", "llama"))
    for key, value in metadata.items():
        name = f"tokenizer.{key}" if key == "chat_template" else f"tokenizer.ggml.{key}"
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        else:
            writer.add_string(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return Tokenizer.from_files(tokenizer_files(GgufFile(path)))


def _qwen2() -> pre_tokenizers.PreTokenizer:
    """transformers' own."""
    made = Qwen2Tokenizer(vocab={"<|endoftext|>": 0}, merges=[])
    return made.backend_tokenizer.pre_tokenizer


PRE = {
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    ),
    "qwen2": _qwen2,
}


def byte_level(path: Path, pre: str, **more: Any) -> tuple[tokenizers.Tokenizer, Tokenizer]:
    """(oracle, ours) of one trained byte-level vocabulary with a hole and padding."""
    oracle = train(
        PRE[pre](), normalizers.NFC() if pre == "qwen2" else None,
        pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    model = json.loads(oracle.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get) + [text for text, _ in SPECIALS]
    kinds = [1] * len(model["vocab"]) + [kind for _, kind in SPECIALS]
    ours = from_gguf(
        path,
        {
            "model": "gpt2",
            "pre": pre,
            "tokens": [*tokens, "[PAD0]", "[PAD1]"],
            "token_type": [*kinds, UNUSED, UNUSED],
            "merges": [" ".join(pair) for pair in model["merges"]],
            "eos_token_id": tokens.index("<|end|>"),
            **more,
        },
    )
    return oracle, ours


def pieces(path: Path, prefix: bool, **more: Any) -> tuple[dict[str, int], list[float], Tokenizer]:
    """A SentencePiece vocabulary: bytes, trained pieces with falling scores."""
    trained = train(
        pre_tokenizers.Metaspace(prepend_scheme="never"), None, ["\u2581"], byte_fallback=True
    )
    vocab = trained.get_vocab(with_added_tokens=False)
    learnt = sorted(vocab, key=vocab.get)  # type: ignore[arg-type]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *learnt]
    tokens += [text for text, _ in SPECIALS]
    kinds = [2, CONTROL, CONTROL, *[BYTE] * 256, *[1] * len(learnt), *(k for _, k in SPECIALS)]
    scores = [0.0] * 259 + [-float(i) for i in range(len(learnt))] + [0.0, 0.0]
    ours = from_gguf(
        path,
        {
            "model": "llama",
            "tokens": tokens,
            "token_type": kinds,
            "scores": scores,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "unknown_token_id": 0,
            "add_space_prefix": prefix,
            **more,
        },
    )
    ids = {t: i for i, t in enumerate(tokens) if kinds[i] in (1, BYTE)}
    return ids, scores, ours
