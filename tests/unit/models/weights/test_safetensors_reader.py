"""Checkpoints in safetensors: every storage type, sharded or not, and damaged ones."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles.tiny_models import CONFIGS, oracle
from safetensors.torch import save_file

from subllm.errors import WeightsError
from subllm.models.arch.registry import spec_from_config
from subllm.models.weights.open import open_weights
from subllm.models.weights.safetensors import SafetensorsReader
from subllm.models.weights.safetensors_file import SafetensorsFile

TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def save(directory: Path, family: str = "llama", kind: str = "F32", **options: Any) -> Any:
    """Writes a checkpoint as transformers does; returns its model."""
    model = oracle(family).to(TYPES[kind])
    model.save_pretrained(directory, **options)
    return model


def assert_holds(reader: Any, model: Any, kind: str) -> None:
    state = {k: v.float().numpy() for k, v in model.state_dict().items()}
    if reader.spec.tied_head:
        state.pop("lm_head.weight")
    assert set(reader.names()) == set(state)
    for name, want in state.items():
        have = reader.read(name)
        assert have.dtype == np.float32 and reader.shape(name) == want.shape
        assert reader.dtype(name) == kind
        assert np.array_equal(have, want), name
        have[...] = 0  # the caller's own
        if want.ndim == 2:
            rows = np.array([want.shape[0] - 1, 0, 2, 2])
            assert np.array_equal(reader.rows(name, rows), want[rows])


@pytest.mark.parametrize("family", [name for name in CONFIGS if name != "gemma2"])
def test_every_family(tmp_path: Path, family: str) -> None:
    model = save(tmp_path, family)
    reader = open_weights(tmp_path)
    assert reader.spec == spec_from_config(model.config.to_dict())
    assert_holds(reader, model, "F32")
    reader.close()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shard", ["5GB", "20KB"])
def test_every_type_sharded_or_not(tmp_path: Path, kind: str, shard: str) -> None:
    model = save(tmp_path, kind=kind, max_shard_size=shard)
    reader = open_weights(tmp_path)
    assert (len(reader.files) > 2) == (shard == "20KB")
    assert_holds(reader, model, kind)
    reader.release()
    assert_holds(reader, model, kind)
    reader.close()


def test_files_by_name_and_apart(tmp_path: Path) -> None:
    model = save(tmp_path / "a", max_shard_size="20KB")
    files = sorted((tmp_path / "a").iterdir())
    moved = []
    for number, path in enumerate(files):  # as in a store of blobs
        target = tmp_path / str(number) / path.name
        target.parent.mkdir()
        moved.append(path.rename(target))
    reader = open_weights(moved)
    assert_holds(reader, model, "F32")
    reader.close()
    save(tmp_path / "b")
    reader = open_weights(tmp_path / "b" / "model.safetensors")
    assert_holds(reader, model, "F32")
    reader.close()


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_the_text_part_of_a_multimodal_checkpoint(tmp_path: Path, prefix: str) -> None:
    model = oracle("gemma3")
    state = {
        prefix + name.removeprefix("model."): value.clone()
        for name, value in model.state_dict().items()
        if name != "lm_head.weight"
    }
    state["vision_tower.patch.weight"] = torch.zeros(3, 4, 5)
    save_file(state, tmp_path / "model.safetensors")
    config = {"model_type": "gemma3", "text_config": model.config.to_dict(), "eos_token_id": [1, 7]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    reader = open_weights(tmp_path)
    assert reader.config["model_type"] == "gemma3_text"
    assert_holds(reader, model, "F32")
    reader.close()


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    from safetensors.torch import load_file

    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


UP = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(UP), f"no tensor '{UP}'"),
        (lambda t: t.update({UP: t[UP].T.contiguous()}), "has shape"),
        (lambda t: t.update({UP: t[UP].to(torch.int8)}), "type I8"),
        (lambda t: t.update({UP: t[UP].to(torch.float8_e4m3fn)}), "type F8_E4M3"),
        (lambda t: t.update({UP: t[UP].double()}), "type F64"),
        (
            lambda t: t.update({UP.replace("model.", "model.language_model.", 1): t[UP].clone()}),
            "occurs in two",
        ),
    ],
)
def test_tensors_that_do_not_make_a_model(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], Any], message: str
) -> None:
    save(tmp_path)
    rewrite(tmp_path / "model.safetensors", change)
    with pytest.raises(WeightsError, match=message):
        open_weights(tmp_path)


def test_sets_of_files_that_do_not_make_a_checkpoint(tmp_path: Path) -> None:
    def refuses(message: str, source: Any = tmp_path) -> None:
        with pytest.raises(WeightsError, match=message) as caught:
            open_weights(source)
        assert "\n" not in str(caught.value)

    refuses("no safetensors or GGUF")
    refuses("cannot read", tmp_path / "missing")
    refuses("config.json", [])
    save(tmp_path, max_shard_size="20KB")
    index = tmp_path / "model.safetensors.index.json"
    files = json.loads(index.read_text())["weight_map"]
    first = tmp_path / sorted(files.values())[0]
    first.rename(tmp_path / "away")
    refuses(f"no {first.name}")
    (tmp_path / "away").rename(first)
    for content in ("", "[]", "{}", '{"weight_map": {}}', '{"weight_map": 3}', "[" * 100_000):
        index.write_text(content)
        refuses("weight_map|not valid JSON|not a JSON object")
    index.write_text(json.dumps({"weight_map": {UP: "../../etc/passwd"}}))
    refuses("no ../../etc/passwd")
    index.write_text(json.dumps({"weight_map": {UP: ["a"]}}))
    refuses("has no")
    index.unlink()
    refuses("without model.safetensors.index.json")
    (tmp_path / "config.json").write_text('{"model_type": ["llama"]}')
    refuses("not supported")
    (tmp_path / "config.json").unlink()
    refuses("no config.json")
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / "two").mkdir(exist_ok=True)
        (tmp_path / "two" / name).write_bytes(b"GGUF")
    refuses("name one of them", tmp_path / "two")
    refuses("2 GGUF files", sorted((tmp_path / "two").iterdir()))


def test_a_name_that_does_not_exist(tmp_path: Path) -> None:
    save(tmp_path)
    reader = open_weights(tmp_path)
    with pytest.raises(WeightsError, match="did you mean"):
        reader.read("model.layers.1.mlp.up.weight")
    with pytest.raises(WeightsError, match="row 264 "):
        reader.rows("model.embed_tokens.weight", np.array([264]))
    with pytest.raises(WeightsError, match=r"tokenizer\.json"):
        reader.tokenizer_files()
    reader.close()


def file(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    body = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(body) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + body + data)
    return path


def entry(kind: object, shape: object, *offsets: object) -> dict[str, object]:
    return {"dtype": kind, "shape": shape, "data_offsets": list(offsets)}


def test_a_valid_file(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"a": "b"},
        "t": entry("F32", [2, 1], 0, 8),
        "s": entry("F16", [], 8, 10),
    }
    opened = SafetensorsFile(file(tmp_path / "f", header, bytes(10)))
    assert opened.tensors["t"].shape == (2, 1) and opened.tensors["s"].shape == ()
    assert opened.data("t").size == 8


@pytest.mark.parametrize(
    "header",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe{}", b"[" * 100_000, b"9" * 5000,
        {"t": []}, {"t": {}}, {"t": None},
        {"t": entry("F32", [2], 0, 4)},
        {"t": entry("F32", [3], 0, 8)},
        {"t": entry("F31", [2], 0, 8)},
        {"t": entry(None, [2], 0, 8)},
        {"t": entry(["F32"], [2], 0, 8)},
        {"t": entry({}, [2], 0, 8)},
        {"t": entry("F32", [-2], 0, 8)},
        {"t": entry("F32", [2.0], 0, 8)},
        {"t": entry("F32", [True, 2], 0, 8)},
        {"t": entry("F32", 2, 0, 8)},
        {"t": entry("F32", None, 0, 8)},
        {"t": entry("F32", [2], 0)},
        {"t": entry("F32", [2], 0, 8, 8)},
        {"t": entry("F32", [2], 8, 0)},
        {"t": entry("F32", [2], -8, 0)},
        {"t": entry("F32", [2], "0", "8")},
        {"t": entry("F32", [2], 4, 12)},
        {"t": entry("F32", [2**62, 4], 0, 0)},
        {"t": entry("F32", [2**61, 2**61, 2**61], 0, 8)},
        {"t": entry("F32", [2**61] * 500_000, 0, 8)},
        {"t": entry("F32", [2**62 - 1], 0, 2**64 - 4)},
        {"t": entry("F32", [2], 0, 8), "u": entry("F32", [2], 0, 8)},
        {"t": entry("F32", [1], 0, 4)},
        {"t": entry("F32", [1], 4, 8)},
    ],
)  # fmt: skip
def test_headers_that_lie(tmp_path: Path, header: object) -> None:
    with pytest.raises(WeightsError, match="not a valid safetensors file") as caught:
        SafetensorsFile(file(tmp_path / "f", header, bytes(8)))
    assert "\n" not in str(caught.value)


def test_lengths_that_lie(tmp_path: Path) -> None:
    header = {"t": entry("F32", [2], 0, 8)}
    for length in (0, 1, 2**31, 2**63, 2**64 - 1):
        with pytest.raises(WeightsError):
            SafetensorsFile(file(tmp_path / "f", header, bytes(8), length))
    whole = file(tmp_path / "f", header, bytes(8)).read_bytes()
    for size in range(len(whole)):
        (tmp_path / "f").write_bytes(whole[:size])
        with pytest.raises(WeightsError):
            SafetensorsFile(tmp_path / "f")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_random_damage_never_crashes(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "model.safetensors"
    if not path.exists():
        save(tmp_path)
        path.rename(tmp_path / "whole")
    damaged = bytearray((tmp_path / "whole").read_bytes())
    length = int.from_bytes(damaged[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, 8 + length))
        damaged[at] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from(b'0129"[]{},:')))
    path.write_bytes(damaged)
    with contextlib.suppress(WeightsError):
        reader = SafetensorsReader([path, tmp_path / "config.json"])
        for name in reader.names():
            reader.read(name)
        reader.close()
