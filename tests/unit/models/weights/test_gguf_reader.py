"""GGUF files read back as the checkpoints that they were made from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import transformers
from oracles.tiny_ggufs import MODELS, Tensors, byte_tokenizer, state, write_gguf

from subllm.errors import WeightsError
from subllm.kernels.sparsity.int4 import pack_int4
from subllm.kernels.sparsity.packing import unpack
from subllm.models.arch.registry import spec_from_config
from subllm.models.text.tokenizer import Tokenizer
from subllm.models.weights.gguf import GgufReader
from subllm.models.weights.open import open_weights


@pytest.mark.parametrize("family", MODELS)
def test_the_checkpoint_comes_back(tmp_path: Path, family: str) -> None:
    tensors = write_gguf(tmp_path / "m.gguf", family)
    reader = open_weights(tmp_path / "m.gguf")
    assert set(reader.names()) == set(tensors)
    shifted = family.startswith("gemma")
    for name, want in tensors.items():
        have = reader.read(name)
        assert have.shape == want.shape == reader.shape(name) and have.dtype == np.float32
        if shifted and name.endswith("norm.weight"):
            want = (want + np.float32(1)) - np.float32(1)
        assert np.array_equal(have, want), name
        assert have.flags.owndata or have.base is not None
        have[...] = 0  # the caller's own
        if want.ndim == 2:
            rows = np.array([want.shape[0] - 1, 0, 2, 2])
            assert np.array_equal(reader.rows(name, rows), want[rows]), name
    reader.close()


@pytest.mark.parametrize("family", MODELS)
def test_the_config_comes_back(tmp_path: Path, family: str) -> None:
    write_gguf(tmp_path / "m.gguf", family)
    reader = GgufReader(tmp_path / "m.gguf")
    want, _ = state(family)
    assert reader.spec == spec_from_config(want)
    assert reader.files == (tmp_path / "m.gguf",)
    config = dict(reader.config)
    assert json.loads(json.dumps(config)) == config
    # transformers makes the same architecture of it.
    rebuilt = transformers.AutoConfig.for_model(config.pop("model_type"), **config)
    assert spec_from_config(rebuilt.to_dict()) == reader.spec
    assert reader.config["eos_token_id"] == 258
    reader.close()


def test_quantized_tensors(tmp_path: Path) -> None:
    kinds = {"attn_q": "Q8_0", "attn_k": "Q4_0", "ffn_up": "BF16", "token_embd": "F16"}
    tensors = write_gguf(tmp_path / "m.gguf", kinds=kinds)
    reader = GgufReader(tmp_path / "m.gguf")
    for part, kind in [("self_attn.q_proj", "Q8_0"), ("self_attn.k_proj", "Q4_0"),
                       ("mlp.up_proj", "BF16"), ("mlp.down_proj", "F32")]:  # fmt: skip
        name = f"model.layers.1.{part}.weight"
        assert reader.dtype(name) == kind
        ggml = gguf.GGMLQuantizationType[kind]
        # A row is quantized on its own, so the order of the rows does not matter.
        want = gguf.quants.dequantize(gguf.quants.quantize(tensors[name], ggml), ggml)
        assert np.array_equal(reader.read(name), want)
        assert np.array_equal(reader.rows(name, np.array([5, 1])), want[[5, 1]])
    reader.close()


def resident(path: Path) -> int:
    """Bytes of the mapping of `path` that are in memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    total = 0
    for line in lines:
        if line.endswith(str(path)):
            total += next(int(entry.split()[1]) for entry in lines if entry.startswith("Rss:"))
    return total * 1024


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
def test_reading_is_lazy_and_release_gives_pages_back(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"

    def grow(tensors: Tensors) -> None:
        tensors["token_embd.weight"] = np.ones((1 << 18, 32), np.float32)  # 32 MiB
        tensors["output.weight"] = np.ones((1 << 18, 32), np.float32)

    write_gguf(path, change=grow)
    reader = GgufReader(path)
    assert resident(path) < 1 << 20
    reader.rows("model.embed_tokens.weight", np.array([0, 1 << 17]))
    assert resident(path) < 4 << 20
    reader.read("model.embed_tokens.weight")
    assert resident(path) >= 32 << 20
    reader.release()
    assert resident(path) < 1 << 20
    assert reader.read("model.norm.weight").shape == (32,)
    reader.close()


def test_names_and_rows_that_do_not_exist(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf")
    reader = GgufReader(tmp_path / "m.gguf")
    near = "did you mean 'model.layers.0.mlp.up_proj.weight'"
    for call in (reader.read, reader.shape, reader.dtype):
        with pytest.raises(WeightsError, match=near):
            call("model.layers.0.mlp.up.weight")
    with pytest.raises(WeightsError, match="not a matrix"):
        reader.rows("model.norm.weight", np.array([0]))
    for row in (-1, 264):
        with pytest.raises(WeightsError, match=f"row {row} "):
            reader.rows("model.embed_tokens.weight", np.array([3, row]))
    empty = reader.rows("model.embed_tokens.weight", np.array([], np.int64))
    assert empty.shape == (0, 32)
    reader.close()


def test_the_tokenizer_comes_along(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf")
    reader = GgufReader(tmp_path / "m.gguf")
    tokenizer = Tokenizer.from_files(reader.tokenizer_files())
    reader.close()
    assert tokenizer.encode("abcd<|end|><|fim|>") == [257, ord("d"), 258, 259]
    assert tokenizer.eos_ids == (258,) and tokenizer.special_ids == {258}
    assert tokenizer.chat_template is not None


Change = Callable[[Tensors], Any]


def drop(name: str) -> Change:
    return lambda tensors: tensors.pop(name)


def put(name: str, shape: tuple[int, ...]) -> Change:
    return lambda tensors: tensors.update({name: np.zeros(shape, np.float32)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("blk.1.ffn_up.weight"), "no tensor 'model.layers.1.mlp.up_proj.weight'"),
        (drop("blk.2.attn_norm.weight"), "no tensor"),
        (drop("token_embd.weight"), "embedding"),
        (put("token_embd.weight", (264,)), "embedding"),
        (put("blk.0.attn_q.weight", (32, 48)), "has shape"),
        (put("blk.0.attn_q.weight", (32,)), "has shape"),
        (put("blk.0.ffn_up_exps.weight", (2, 48, 32)), "unknown to architecture"),
        (put("anything", (3,)), "unknown to architecture"),
        (put("rope_freqs.weight", (4,)), "safetensors checkpoint"),
    ],
)
def test_tensors_that_do_not_make_a_model(tmp_path: Path, change: Change, message: str) -> None:
    write_gguf(tmp_path / "m.gguf", change=change)
    with pytest.raises(WeightsError, match=message):
        GgufReader(tmp_path / "m.gguf")


Extra = Callable[[gguf.GGUFWriter], Any]


def without(key: str) -> Extra:
    return lambda writer: writer.kv_data[0].pop(key)


def with_value(key: str, value: Any, kind: gguf.GGUFValueType) -> Extra:
    def extra(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0].pop(key, None)
        writer.add_key_value(key, value, kind)

    return extra


U32, F32, STR, BOOL, I32 = (
    getattr(gguf.GGUFValueType, k) for k in ("UINT32", "FLOAT32", "STRING", "BOOL", "INT32")
)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (without("llama.block_count"), "block_count is None"),
        (without("llama.attention.layer_norm_rms_epsilon"), "not a positive number"),
        (with_value("general.architecture", "gptj", STR), "'gptj' is not supported"),
        (with_value("general.architecture", 3, U32), "3 is not supported"),
        (with_value("llama.block_count", 0, U32), "not a valid size"),
        (with_value("llama.block_count", 2**32 - 1, U32), "not a valid size"),
        (with_value("llama.block_count", 2**20, U32), "not a valid size"),
        (with_value("llama.block_count", -3, I32), "not a valid size"),
        (with_value("llama.block_count", "3", STR), "not a valid size"),
        (with_value("llama.block_count", True, BOOL), "not a valid size"),
        (with_value("llama.embedding_length", 64, U32), "has shape"),
        (with_value("llama.attention.head_count", 3, U32), "not a multiple"),
        (with_value("llama.attention.head_count", 2**31 - 1, U32), "not a multiple|has shape"),
        (with_value("llama.attention.key_length", 2**31 - 1, U32), "has shape"),
        (with_value("llama.rope.freq_base", -1.0, F32), "not a positive number"),
        (with_value("llama.rope.freq_base", float("nan"), F32), "not a positive number"),
        (with_value("llama.rope.freq_base", float("inf"), F32), "not a positive number"),
        (with_value("llama.rope.scaling.type", "yarn", STR), "'yarn' is not supported"),
        (with_value("llama.rope.dimension_count", 4, U32), "part of a head"),
    ],
)
def test_metadata_that_cannot_be(tmp_path: Path, extra: Extra, message: str) -> None:
    write_gguf(tmp_path / "m.gguf", extra=lambda w: (byte_tokenizer(w), extra(w)))
    with pytest.raises(WeightsError, match=message):
        GgufReader(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (without("tokenizer.ggml.tokens"), "no tokenizer"),
        (without("tokenizer.ggml.merges"), "no tokenizer"),
        (with_value("tokenizer.ggml.model", "bert", STR), "'bert' is not supported"),
        (with_value("tokenizer.ggml.pre", "viking", STR), "'viking' is not supported"),
        (lambda w: (without("tokenizer.ggml.tokens")(w), w.add_token_list(["a"])), "differ"),
        (
            lambda w: (without("tokenizer.ggml.merges")(w), w.add_token_merges(["a b c"])),
            "not a pair",
        ),
        (
            lambda w: (
                without("tokenizer.ggml.tokens")(w),
                w.add_array("tokenizer.ggml.tokens", [1]),
            ),
            "no tokenizer",
        ),
        (
            lambda w: (
                with_value("tokenizer.ggml.model", "llama", STR)(w),
                without("tokenizer.ggml.merges")(w),
                w.add_array("tokenizer.ggml.scores", ["a"] * 264),
            ),
            "scores",
        ),
    ],
)
def test_tokenizers_that_cannot_be(tmp_path: Path, extra: Extra, message: str) -> None:
    write_gguf(tmp_path / "m.gguf", extra=lambda w: (byte_tokenizer(w), extra(w)))
    reader = GgufReader(tmp_path / "m.gguf")
    with pytest.raises(WeightsError, match=message):
        reader.tokenizer_files()
    reader.close()


def test_q4_k_keeps_its_codes(tmp_path: Path) -> None:
    """Packed as int4, such a tensor reads bit for bit as the gguf package dequantizes it, also
    where llama's rows are permuted."""
    kinds = dict.fromkeys(["attn_q", "attn_output", "ffn_down"], "Q4_K") | {"attn_v": "Q8_0"}
    write_gguf(tmp_path / "m.gguf", "llama_wide", kinds=kinds)
    reader = GgufReader(tmp_path / "m.gguf")
    prefix = "model.layers.1."
    for part in ("self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj"):
        assert reader.holds_int4(f"{prefix}{part}.weight")
        rows = reader.int4(f"{prefix}{part}.weight")
        assert rows is not None
        packed = pack_int4(rows, None, "dense")
        packed.verify()
        assert np.array_equal(unpack(packed), reader.read(f"{prefix}{part}.weight")), part
    raw = {t.name: t for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}["blk.1.ffn_down.weight"]
    want = gguf.quants.dequantize(raw.data, raw.tensor_type)
    assert np.array_equal(unpack(packed), want)
    for other in ("self_attn.v_proj", "mlp.up_proj"):
        assert not reader.holds_int4(f"{prefix}{other}.weight")
        assert reader.int4(f"{prefix}{other}.weight") is None
    assert reader.int4("model.norm.weight") is None
    reader.close()
