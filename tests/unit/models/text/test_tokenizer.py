"""Tokenizers, above all those rebuilt from GGUF files, against independent ones."""

from __future__ import annotations

import json
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest

from subllm.errors import WeightsError
from subllm.models.catalog.prompt import FimSpec
from subllm.models.text import fim
from subllm.models.text.token_bytes import byte_alphabet
from subllm.models.text.tokenizer import Tokenizer
from unit.models.text.tokenizer_samples import (
    PRE,
    SPECIALS,
    TEXTS,
    USER,
    byte_level,
    from_gguf,
    pieces,
)


@pytest.mark.parametrize("pre", PRE)
def test_byte_level(tmp_path: Path, pre: str) -> None:
    oracle, ours = byte_level(tmp_path / "t.gguf", pre)
    again = Tokenizer.from_bundle(ours.to_bundle())
    assert again.to_bundle() == ours.to_bundle()
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == oracle.encode(text, add_special_tokens=False).ids, text
        assert again.encode(text) == ids
        normal = unicodedata.normalize("NFC", text) if pre == "qwen2" else text
        assert ours.decode(ids) == normal
        assert b"".join(map(ours.token_bytes, ids)) == normal.encode()
    end, fim = (ours.id_of(text) for text, _ in SPECIALS)
    assert ours.special_ids == {end, fim} and ours.eos_ids == (end,)
    assert ours.vocab_size == fim + 1 and ours.token_bytes(fim + 1) == b""
    assert ours.decode([end, *ours.encode("a")], skip_special=True) == "a"
    assert (ours.bos_id, ours.adds_bos, ours.bos_token) == (None, False, "")
    assert ours.eos_token == "<|end|>" and ours.chat_template is None


@pytest.mark.parametrize("pre", PRE)
def test_special_tokens_in_plain_text(tmp_path: Path, pre: str) -> None:
    _, ours = byte_level(tmp_path / "t.gguf", pre)
    for text in TEXTS:
        ids = ours.encode_plain(text)
        assert not set(ids) & ours.special_ids
        normal = unicodedata.normalize("NFC", text) if pre == "qwen2" else text
        assert b"".join(map(ours.token_bytes, ids)) == normal.encode()
        if "<|end|>" not in text and "<|fim|>" not in text:
            assert ids == ours.encode(text)
    for text in ("<|<|end|>end|>", "<<|fim|>|fim|>", "<|end|><|fim|>" * 3):
        ids = ours.encode_plain(text)
        assert not set(ids) & ours.special_ids and ours.decode(ids) == text
    assert ours.encode_cut(ours.cut("a<|end|>b", "\ue000"), "\ue000") == ours.encode_plain(
        "a<|end|>b"
    )


def greedy_merges(text: str, vocab: dict[str, int], scores: list[float]) -> list[int]:
    """SentencePiece's algorithm: the best-scored neighbours first, from the left."""
    parts = list(text)
    while True:
        joined = [a + b for a, b in pairwise(parts)]
        known = [(-scores[vocab[j]], i) for i, j in enumerate(joined) if j in vocab]
        if not known:
            break
        _, at = min(known)
        parts[at : at + 2] = [joined[at]]
    ids = []
    for part in parts:
        ids += [vocab[part]] if part in vocab else [vocab[f"<0x{b:02X}>"] for b in part.encode()]
    return ids


@pytest.mark.parametrize("prefix", [False, True])
def test_sentencepiece(tmp_path: Path, prefix: bool) -> None:
    vocab, scores, ours = pieces(tmp_path / "t.gguf", prefix)
    for text in TEXTS:
        if "<|end|>" in text or "<|fim|>" in text or "<0x" in text:
            continue
        spaced = ("\u2581" if prefix and text else "") + text.replace(" ", "\u2581")
        assert ours.encode(text, bos=False) == greedy_merges(spaced, vocab, scores), text
        assert ours.decode(ours.encode(text, bos=False)) == text
    assert ours.adds_bos and ours.encode("a")[0] == 1 and ours.encode("a")[1] != 1
    assert ours.encode("<s>a") == ours.encode("<s>a", bos=False)
    assert ours.encode("a", bos=True)[0] == 1
    assert ours.bos_token == "<s>" and ours.eos_token == "</s>"
    assert ours.token_bytes(3 + 0x0A) == b"\n" and ours.token_bytes(1) == b"<s>"


@pytest.mark.parametrize("prefix", [False, True])
def test_sentencepiece_special_tokens_in_plain_text(tmp_path: Path, prefix: bool) -> None:
    _, _, ours = pieces(tmp_path / "t.gguf", prefix)
    for text in [*TEXTS, "x<s>y</s>z", "<unk>"]:
        ids = ours.encode_plain(text)
        assert not set(ids) & ours.special_ids
        # No space is put where the text was cut.
        assert ours.decode(ids) == text


@pytest.mark.parametrize("order", ["psm", "spm"])
@pytest.mark.parametrize("prefix", [False, True])
def test_sentencepiece_fills_in_the_middle(
    tmp_path: Path, prefix: bool, order: Literal["psm", "spm"]
) -> None:
    """Only the text that begins the file gets the space before a text: no other part does."""
    vocab, scores, ours = pieces(tmp_path / "t.gguf", prefix)
    spec = FimSpec(prefix="<|fim|>", suffix="<|end|>", middle="</s>", order=order)
    before, after, middle = (ours.id_of(text) for text in ("<|fim|>", "<|end|>", "</s>"))
    for text, rest in (("def f(x):", "return x y"), (" a", " b"), ("", "b"), ("a<|end|>c", "d")):
        ids = fim.encode(spec, ours, text, rest)
        assert ids[0] == ours.bos_id
        head = [before, *ours.encode_plain(text)]
        spelled = greedy_merges(rest.replace(" ", "\u2581"), vocab, scores)
        tail = [after, *spelled]
        assert ids[1:] == (*(head + tail if order == "psm" else tail + head), middle)
        assert ours.decode(spelled) == rest or rest.startswith(" ")


def test_user_defined_tokens_are_matched_whole(tmp_path: Path) -> None:
    metadata = {
        "architecture": "gemma3",
        "model": "llama",
        "tokens": [*dict.fromkeys("<table>"), "<table>"],
        "token_type": [*[1] * 7, USER],
        "scores": [0.0] * 8,
        "add_bos_token": False,
    }
    ours = from_gguf(tmp_path / "t.gguf", metadata)
    assert ours.encode("<table>") == [7] and ours.encode("<tab") == [0, 1, 2, 3]
    assert ours.token_bytes(7) == b"<table>" and not ours.special_ids


def test_where_generation_ends(tmp_path: Path) -> None:
    _, ours = byte_level(tmp_path / "t.gguf", "gpt-2", eot_token_id=3)
    assert ours.eos_ids == (ours.id_of("<|end|>"), 3)


def files(**changes: Any) -> dict[str, bytes]:
    letters = byte_alphabet()
    definition: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [
            {"id": 256, "content": "<s>", "special": True, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False},
        ],
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                    "use_regex": True},
        "model": {"type": "BPE", "vocab": dict(letters), "merges": []},
    }  # fmt: skip
    values: dict[str, Any] = {"tokenizer.json": definition, **changes}
    return {
        name.replace("__", "."): json.dumps(v).encode() if not isinstance(v, bytes) else v
        for name, v in values.items()
    }


def test_what_the_side_files_say() -> None:
    def of(**changes: Any) -> Tokenizer:
        return Tokenizer.from_files(files(**changes))

    config = {"eos_token": {"content": "<s>"}, "bos_token": "<s>", "chat_template": "x"}
    model = of(tokenizer_config__json=config)
    assert (model.eos_ids, model.bos_id, model.adds_bos) == ((256,), 256, False)
    assert model.chat_template == "x" and model.vocab_size == 257
    assert of(tokenizer_config__json={**config, "add_bos_token": True}).adds_bos
    many = of(generation_config__json={"eos_token_id": [7, 256]}, config__json={"eos_token_id": 9})
    assert many.eos_ids == (7, 256, 9)
    named = [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]
    assert of(tokenizer_config__json={"chat_template": named}).chat_template == "d"
    apart = of(tokenizer_config__json=config, chat_template__jinja=b"file")
    assert apart.chat_template == "file"


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer__json": b""},
        {"tokenizer__json": b"[]"},
        {"tokenizer__json": b"[" * 100_000},
        {"tokenizer__json": b"{}"},
        {"tokenizer__json": {"model": {"type": "BPE"}}},
        {"tokenizer__json": {"model": {"type": "BPE", "vocab": [], "merges": []}}},
        {"tokenizer__json": {"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}},
        {"tokenizer__json": {"model": {"type": "BPE", "vocab": {"a": 2**40}, "merges": []}}},
        {"tokenizer__json": {"model": {"type": "BPE", "vocab": {"a": "0"}, "merges": []}}},
        {"tokenizer__json": {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["b c"]}}},
        {"tokenizer__json": {"model": {"vocab": {"a": 0}}, "added_tokens": [3]}},
        {"tokenizer__json": {"model": {"vocab": {"a": 0}}, "added_tokens": [{}]}},
        {"tokenizer__json": {"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1}]}},
        {"tokenizer__json": {"model": {"vocab": {"a": 0}}, "added_tokens": 3}},
        {
            "tokenizer__json": {
                "model": {"vocab": {"a": 0}},
                "added_tokens": [{"id": 1, "content": 2}],
            }
        },
        {"tokenizer_config__json": b"\xff"},
        {"tokenizer_config__json": b"3"},
        {"generation_config__json": b"nonsense"},
    ],
)
def test_malformed_files(changes: dict[str, Any]) -> None:
    with pytest.raises(WeightsError) as caught:
        Tokenizer.from_files({**files(), **files(**changes)})
    assert "\n" not in str(caught.value)


def test_missing_and_malformed_bundles() -> None:
    with pytest.raises(WeightsError, match=r"no tokenizer\.json"):
        Tokenizer.from_files({})
    bundle = json.loads(Tokenizer.from_files(files()).to_bundle())
    for bad in (
        b"", b"[]", b"3", b"{}", b"\xff", b"[" * 100_000,
        json.dumps({**bundle, "format": 2}).encode(),
        json.dumps({**bundle, "facts": {}}).encode(),
        json.dumps({**bundle, "facts": {**bundle["facts"], "more": 1}}).encode(),
        json.dumps({**bundle, "facts": {**bundle["facts"], "eos_ids": 3}}).encode(),
        json.dumps({**bundle, "tokenizer": "{}"}).encode(),
        json.dumps({**bundle, "tokenizer": 3}).encode(),
    ):  # fmt: skip
        with pytest.raises(WeightsError) as caught:
            Tokenizer.from_bundle(bad)
        assert "\n" not in str(caught.value)
