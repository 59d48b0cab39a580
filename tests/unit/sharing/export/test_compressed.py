"""Exports of format compressed-tensors. That the package reads them is asked by
scripts/test export: the versions that do are not installed beside transformers 5."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from oracles.exported_models import exportable
from oracles.packed_models import NAME
from safetensors import safe_open

from subllm.errors import PatternError
from subllm.kernels.sparsity.packing import unpack
from subllm.sharing.export.export import export_model


def decompressed(directory: Path, stem: str) -> np.ndarray:
    """A matrix by the format's own words: each row's kept weights where its bits are set."""
    with safe_open(directory / "model.safetensors", "pt") as file:
        values = file.get_tensor(f"{stem}.compressed").float().numpy()
        bits = file.get_tensor(f"{stem}.bitmask").numpy()
        rows, cols = file.get_tensor(f"{stem}.shape").flatten().tolist()
    out = np.zeros((rows, cols), np.float32)
    for row in range(rows):
        places = [col for col in range(cols) if bits[row, col // 8] >> (col % 8) & 1]
        out[row, places] = values[row]
    return out


def test_a_2_4_model(tmp_path: Path) -> None:
    store, packed, _ = exportable(tmp_path / "home", "llama", "int8", "2:4")
    report = export_model(store, NAME, tmp_path / "ct", "compressed-tensors", "f16")
    config = json.loads((tmp_path / "ct/config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "compressed-tensors"
    assert config["sparsity_config"]["format"] == "sparse-24-bitmask"
    assert config["sparsity_config"]["ignore"] == ["model.embed_tokens", "lm_head"]
    inner = [name for name in packed.packed if ".layers." in name]
    assert report.tensors == {"sparse-24-bitmask": len(inner), "F16": 2 + len(packed.vectors)}
    for name in inner:
        want = unpack(packed.packed[name]).astype(np.float16)
        assert np.array_equal(decompressed(tmp_path / "ct", name.removesuffix(".weight")), want)
    assert "vLLM from 0.19" in report.notes[0]
    size = report.files["model.safetensors"]
    assert size < export_model(store, NAME, tmp_path / "hf", "hf").files["model.safetensors"]


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        ("dense", "no sparse matrices"),
        ("8:16", "pattern 8:16"),
        ("mixed", "12:16, 50%, 8:16, 9:16"),
    ],
)
def test_other_patterns_are_refused_by_name(tmp_path: Path, pattern: str, named: str) -> None:
    store, _, _ = exportable(tmp_path / "home", "llama", "int8", pattern)
    with pytest.raises(PatternError, match=rf"{named}.*--pattern 2:4.*--format hf"):
        export_model(store, NAME, tmp_path / "ct", "compressed-tensors")
    assert list(tmp_path.iterdir()) == [tmp_path / "home"]
