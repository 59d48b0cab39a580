"""Exports of format hf, as transformers loads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import yaml
from oracles.exported_models import BOS, END, FAMILIES, TEMPLATE, bundle, exportable
from oracles.packed_models import NAME, PackedMemory, packed_oracle, store_model
from oracles.tiny_models import CONFIGS

from subllm.engine.backends.native import NativeBackend
from subllm.engine.loader import PackedSource
from subllm.kernels.sparsity.packing import unpack
from subllm.models.arch.registry import spec_from_config
from subllm.models.store.manifest import BaseRef, Licence, Likeness, Perplexity, RecoveryRecord
from subllm.models.store.model_files import open_model
from subllm.models.text.chat_template import ChatTemplate
from subllm.models.weights.open import open_weights
from subllm.sharing.export.export import export_model

PROMPT = np.random.default_rng(1).integers(0, 256, 40)


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_answers_as_the_engine_does(tmp_path: Path, family: str) -> None:
    store, packed, _ = exportable(tmp_path / "home", family)
    report = export_model(store, NAME, tmp_path / "hf", "hf", "f32")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert model.dtype == torch.float32
    assert spec_from_config(model.config.to_dict()) == packed.spec
    with torch.no_grad():
        got = model(torch.from_numpy(PROMPT)[None]).logits[0].numpy()
    with open_model(store, NAME) as files:
        backend = NativeBackend(PackedSource(files), threads=1, kv="float32", exact=True)
        want = backend.logits(backend.kv_open(), 0, PROMPT.astype(np.int32))
    assert want.std() > 0.05
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)
    assert report.tensors == {"F32": len(packed.vectors) + len(_matrices(packed))}


@pytest.mark.parametrize("family", [f for f in CONFIGS if f != "gemma2"])
def test_the_architecture_comes_back(tmp_path: Path, family: str) -> None:
    """Those, too, that llama.cpp would compute otherwise."""
    packed, _ = packed_oracle(family)
    store = store_model(tmp_path / "home", packed, tokenizer_bundle=bundle())
    export_model(store, NAME, tmp_path / "hf", "hf")
    assert open_weights(tmp_path / "hf").spec == packed.spec


@pytest.mark.parametrize("values", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("kind", ["bf16", "f16", "f32"])
def test_weights_are_the_packed_ones_rounded(tmp_path: Path, values: str, kind: str) -> None:
    store, packed, _ = exportable(tmp_path / "home", "qwen2", values)
    export_model(store, NAME, tmp_path / "hf", "hf", kind)
    reader = open_weights(tmp_path / "hf")
    dtype = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[kind]
    for name in _matrices(packed):
        weights = unpack(packed.packed[name])
        want = torch.from_numpy(weights).to(dtype).float().numpy()
        got = reader.read(name)
        np.testing.assert_array_equal(got, want)
        assert not np.signbit(got[got == 0]).any()
    for name, vector in packed.vectors.items():
        assert np.array_equal(reader.read(name), torch.from_numpy(vector).to(dtype).float().numpy())
    reader.close()


def _matrices(packed: PackedMemory) -> list[str]:
    """Names of stored matrices: a tied head is the embedding."""
    return [n for n in packed.packed if not (n == "lm_head.weight" and packed.spec.tied_head)]


@pytest.mark.parametrize("add_bos", [False, True])
def test_the_tokenizer_is_the_same(tmp_path: Path, add_bos: bool) -> None:
    packed, _ = packed_oracle("llama")
    store = store_model(tmp_path / "home", packed, tokenizer_bundle=bundle(add_bos))
    export_model(store, NAME, tmp_path / "hf", "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    with open_model(store, NAME) as files:
        ours = files.tokenizer()
        for text in ("", "abc ab\n", "é🚀<|end|>x"):
            ids = ours.encode(text)
            assert theirs(text)["input_ids"] == ids
            assert theirs.decode(ids) == ours.decode(ids)
        assert (ours.encode("x")[0] == BOS) is add_bos
        messages = [{"role": "user", "content": "hi"}]
        want = ChatTemplate(TEMPLATE).render(messages)
        assert theirs.apply_chat_template(messages, tokenize=False) == want
    assert (theirs.bos_token_id, theirs.eos_token_id) == (BOS, END)


def test_generation_ends_where_subllm_ends_it(tmp_path: Path) -> None:
    packed, _ = packed_oracle("llama")
    store = store_model(tmp_path / "home", packed, tokenizer_bundle=bundle())
    model = store.model(NAME)
    prompt = model.prompt.model_copy(update={"stop_tokens": ("<|middle|>", "no token")})
    digest = store.put_manifest(model.model_copy(update={"prompt": prompt}))
    store.set_ref(NAME, digest)
    export_model(store, NAME, tmp_path / "hf", "hf")
    config = json.loads((tmp_path / "hf/generation_config.json").read_text())
    assert config["eos_token_id"] == [END, 260] and config["pad_token_id"] == END
    assert json.loads((tmp_path / "hf/config.json").read_text())["eos_token_id"] == END


def test_the_card_says_what_the_manifest_says(tmp_path: Path) -> None:
    store, _, _ = exportable(tmp_path / "home", "llama")
    model = store.model(NAME)
    digest = model.plan
    likeness = Likeness(agreement=0.91, kl=0.05), Likeness(agreement=0.95, kl=0.02)
    changed = model.model_copy(
        update={
            "base": BaseRef(
                name="tiny:1m", manifest=digest, source="path:/home/me/secret/m.gguf",
                licence=Licence(id="LicenseRef-DeepSeek-1.0", text="Terms."),
            ),
            "perplexity": {
                "python": Perplexity(before=2.9, after=3.1, tokens=4088, agreement=0.942)
            },
            "recovery": RecoveryRecord(
                recipe={}, tokens=325_632, text=digest, heldout=digest, before=likeness[0],
                source="mix:path:/home/me/app=0.5,pack:python=0.5", after=likeness[1],
            ),
        }
    )  # fmt: skip
    store.set_ref(NAME, store.put_manifest(changed))
    export_model(store, NAME, tmp_path / "hf", "hf")
    text = (tmp_path / "hf/README.md").read_text()
    _, front, body = text.split("---\n", 2)
    head = yaml.safe_load(front)
    assert head["license"] == "other" and head["license_name"] == "deepseek-1.0"
    assert head["license_link"] == "LICENSE"
    assert (tmp_path / "hf/LICENSE").read_text() == "Terms."
    for part in (
        "tiny:1m", "magnitude", "50.0%", "4,088", "2.900", "3.100", "94.2%", "325,632",
        "91.0% to 95.0%", "path:app=0.5,pack:python", "path:m.gguf", "the others are zero",
    ):  # fmt: skip
        assert part in body, part
    assert "/home/me" not in text
