"""Exports of format gguf, as the gguf package and our own reader read them. What llama.cpp
answers is asked by scripts/test export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tokenizers
from oracles.exported_models import BOS, END, FAMILIES, MIDDLE, TEMPLATE, bundle, exportable
from oracles.packed_models import NAME, packed_oracle, store_model

from subllm.errors import SubllmError
from subllm.kernels.sparsity.int4 import Int4Rows, pack_int4
from subllm.kernels.sparsity.packing import pack, unpack
from subllm.models.arch.registry import spec_from_config
from subllm.models.text.tokenizer import Tokenizer
from subllm.models.weights.gguf import GgufReader
from subllm.models.weights.q4_k import int4_of_q4_k
from subllm.sharing.export.export import export_model
from subllm.sharing.export.ggml import Encoder, kind_for

FILE = "tiny-1m-python.gguf"
# Of what values, in types that "auto" chooses, at most off by this part of the largest weight.
OFF = {"BF16": 0.0, "Q8_0": 0.0, "Q4_0": 2**-11, "Q4_1": 2**-10, "F16": 2**-11}


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "llama3_rope"])
@pytest.mark.parametrize("values", ["bf16", "int8", "int4"])
def test_a_reader_finds_the_packed_model(tmp_path: Path, family: str, values: str) -> None:
    store, packed, _ = exportable(tmp_path / "home", family, values)
    report = export_model(store, NAME, tmp_path / "gguf", "gguf")
    reader = GgufReader(tmp_path / "gguf" / FILE)
    assert reader.spec == packed.spec
    found: dict[str, int] = {"F32": len(packed.vectors)}
    for name in reader.names():
        if name not in packed.packed:
            want = packed.vectors[name]
            shifted = want + np.float32(1) - np.float32(1) if "gemma" in family else want
            assert np.array_equal(reader.read(name), shifted if "norm" in name else want), name
            continue
        kind, want = reader.dtype(name), unpack(packed.packed[name])
        found[kind] = found.get(kind, 0) + 1
        got = reader.read(name)
        assert np.abs(got - want).max() <= OFF[kind] * np.abs(want).max(), (name, kind)
        if packed.packed[name].mask is not None:  # what is dropped stays dropped
            assert not got[want == 0].any()
    assert report.tensors == found
    reader.close()


def test_rope_factors_are_those_of_transformers(tmp_path: Path) -> None:
    store, _, model = exportable(tmp_path / "home", "llama3_rope")
    export_model(store, NAME, tmp_path / "gguf", "gguf")
    tensors = {t.name: t for t in gguf.GGUFReader(tmp_path / "gguf" / FILE).tensors}
    factors = tensors["rope_freqs.weight"].data
    plain = 500.0 ** -(np.arange(0, 16, 2) / 16)
    np.testing.assert_allclose(plain / factors, model.model.rotary_emb.inv_freq, rtol=1e-6)


def test_the_package_reads_types_and_metadata(tmp_path: Path) -> None:
    store, packed, _ = exportable(tmp_path / "home", "qwen2")
    export_model(store, NAME, tmp_path / "gguf", "gguf")
    reader = gguf.GGUFReader(tmp_path / "gguf" / FILE)
    fields = {key: field.contents() for key, field in reader.fields.items()}
    assert fields["general.architecture"] == "qwen2" and fields["general.name"] == NAME
    assert fields["general.license"] == "Apache-2.0" and fields["general.file_type"] == 7
    assert fields["tokenizer.chat_template"] == TEMPLATE
    assert fields["tokenizer.ggml.pre"] == "gpt-2"
    assert fields["tokenizer.ggml.bos_token_id"] == BOS
    assert fields["tokenizer.ggml.eos_token_id"] == END
    for tensor in reader.tensors:
        if tensor.name == "token_embd.weight":
            got = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            assert np.array_equal(got, unpack(packed.packed["model.embed_tokens.weight"]))


@pytest.mark.parametrize(("kind", "types"), [("f16", {"F16"}), ("q8_0", {"Q8_0"})])
def test_one_type_for_all(tmp_path: Path, kind: str, types: set[str]) -> None:
    store, packed, _ = exportable(tmp_path / "home", "llama", "int4")
    report = export_model(store, NAME, tmp_path / "gguf", "gguf", kind)
    assert set(report.tensors) == types | {"F32"}
    reader = GgufReader(tmp_path / "gguf" / FILE)
    for name, tensor in packed.packed.items():
        want = unpack(tensor)
        # A pruned matrix keeps its codes; a dense one has minima and is rounded anew.
        off = 2**-8 if kind == "q8_0" and tensor.mask is None else 2**-10
        assert np.abs(reader.read(name) - want).max() <= off * np.abs(want).max()
    reader.close()


def test_codes_of_a_q4_k_file_go_back_as_they_came() -> None:
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (24, 2, 144), np.uint8)
    raw[:, :, :4] = rng.uniform(1e-4, 1e-3, (24, 2, 2)).astype(np.float16).view(np.uint8)
    raw = raw.reshape(24, -1)
    tensor = pack_int4(int4_of_q4_k(raw), None, "dense")
    assert kind_for(tensor, "auto") == "Q4_K"
    order = rng.permutation(24)
    got = Encoder(tensor, "Q4_K").rows(order)
    np.testing.assert_array_equal(
        gguf.quants.dequantize(got, gguf.GGMLQuantizationType.Q4_K), unpack(tensor)[order]
    )
    # Where a step is 0, any code says the same.
    steps = int4_of_q4_k(raw).parts[order, :, 0].min(axis=(1, 2))
    assert np.array_equal(got[steps > 0], raw[order][steps > 0]) and (steps > 0).any()


def test_types_that_do_not_fit() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((8, 256)).astype(np.float32)
    ours = pack(weights, None, "dense", "int4")  # parts of 8 bits
    assert kind_for(ours, "auto") == "Q4_1"
    narrow = pack(np.ascontiguousarray(weights[:, :48]), None, "dense", "int8")
    assert [kind_for(narrow, kind) for kind in ("auto", "q8_0", "f16")] == ["F16"] * 3
    parts = np.full((8, 1, 2, 8), 63, np.uint8)
    codes = rng.integers(0, 16, (8, 256)).astype(np.uint8)
    fits = Int4Rows(codes, np.full((8, 1, 2), 0.01, np.float16), parts)
    assert kind_for(pack_int4(fits, None, "dense"), "auto") == "Q4_K"


@pytest.mark.parametrize(
    ("family", "config", "word"),
    [
        ("gemma3", {"final_logit_softcapping": 2.0}, "soft caps"),
        ("gemma3", {"query_pre_attn_scalar": 24}, "attention scale"),
        ("gemma3", {"layer_types": ["sliding_attention"] * 7}, "every sixth"),
        ("starcoder2", {"use_bias": False}, "biases"),
        ("llama", {"hidden_act": "gelu"}, "activation"),
        ("gemma", {"attention_bias": True}, "biases"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(
    tmp_path: Path, family: str, config: dict[str, Any], word: str
) -> None:
    store, _, _ = exportable(tmp_path / "home", family, **config)
    with pytest.raises(SubllmError, match=rf"{word}.*--format hf"):
        export_model(store, NAME, tmp_path / "gguf", "gguf")
    assert not (tmp_path / "gguf").exists()
    export_model(store, NAME, tmp_path / "hf", "hf")
    written = json.loads((tmp_path / "hf/config.json").read_text())
    assert spec_from_config(written).family == family


def test_a_window_is_noted(tmp_path: Path) -> None:
    store, _, _ = exportable(tmp_path / "home", "mistral")
    report = export_model(store, NAME, tmp_path / "gguf", "gguf")
    assert "the last 256 tokens" in report.notes[0]
    assert report.notes[0] in (tmp_path / "gguf/README.md").read_text()


TEXTS = ("", " ", "abc ab", "def f(x):\n    return x  # é🚀\r\n", "<|end|>a<|middle|>", "  two")


def read_back(path: Path) -> Tokenizer:
    reader = GgufReader(path)
    tokenizer = Tokenizer.from_files(reader.tokenizer_files())
    reader.close()
    return tokenizer


@pytest.mark.parametrize("add_bos", [False, True])
def test_a_byte_level_tokenizer_comes_back(tmp_path: Path, add_bos: bool) -> None:
    packed, _ = packed_oracle("llama")
    store = store_model(tmp_path / "home", packed, tokenizer_bundle=bundle(add_bos))
    export_model(store, NAME, tmp_path / "gguf", "gguf")
    ours, theirs = Tokenizer.from_bundle(bundle(add_bos)), read_back(tmp_path / "gguf" / FILE)
    for text in TEXTS:
        assert theirs.encode(text) == ours.encode(text), text
    assert theirs.special_ids == {BOS, END, MIDDLE} and theirs.eos_ids[0] == END
    assert theirs.chat_template == TEMPLATE and theirs.adds_bos is add_bos


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("as_pairs", [False, True])
def test_a_sentencepiece_tokenizer_comes_back(tmp_path: Path, prefix: bool, as_pairs: bool) -> None:
    definition = sentencepiece(prefix, as_pairs)
    config = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}
    files = {
        "tokenizer.json": json.dumps(definition).encode(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }
    ours = Tokenizer.from_files(files)
    packed, _ = packed_oracle("mistral", vocab_size=600, sliding_window=256)
    store = store_model(tmp_path / "home", packed, tokenizer_bundle=ours.to_bundle())
    export_model(store, NAME, tmp_path / "gguf", "gguf")
    theirs = read_back(tmp_path / "gguf" / FILE)
    for text in (
        "",
        "x",
        "def f(x):\n    return  x + 10  # é🚀",
        "hello hello",
        "a</s>b",
        " two  ",
    ):
        assert theirs.encode(text) == ours.encode(text), text
        assert theirs.decode(ours.encode(text)) == ours.decode(ours.encode(text))
    assert theirs.bos_id == 1 and theirs.adds_bos


def sentencepiece(prefix: bool, as_pairs: bool) -> dict[str, Any]:
    """What a converter makes of a small SentencePiece model: bytes, pieces, all their merges by
    the score of the whole."""
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=200, show_progress=False, initial_alphabet=["\u2581"]
    )
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="never")
    trained.train_from_iterator(["def f(x): return x + 10  hello hello two\n" * 3], trainer)
    learnt = sorted(trained.get_vocab(), key=trained.get_vocab().get)  # type: ignore[arg-type]
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *learnt]
    vocab = {text: index for index, text in enumerate(texts)}
    merges = [
        [text[:cut], text[cut:]]
        for text in learnt
        for cut in range(1, len(text))
        if text[:cut] in vocab and text[cut:] in vocab
    ]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    steps = [{"type": "Prepend", "prepend": "\u2581"}, replace] if prefix else [replace]
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": index, "content": texts[index], "special": True, **flags} for index in range(3)
        ],
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "vocab": vocab,
            "merges": merges if as_pairs else [" ".join(pair) for pair in merges],
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
        },
    }


def test_a_tokenizer_without_a_name_is_refused(tmp_path: Path) -> None:
    packed, _ = packed_oracle("llama")  # its tokenizer does not split at all
    store = store_model(tmp_path / "home", packed)
    with pytest.raises(SubllmError, match=r"GGUF has a name for .*--format hf"):
        export_model(store, NAME, tmp_path / "gguf", "gguf")
    assert list(tmp_path.iterdir()) == [tmp_path / "home"]
