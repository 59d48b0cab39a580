"""Models from damaged packed files, in a process of their own: an error of ours or tokens.

The budget is small here; `SUBLLM_TEST_FUZZ_SECONDS=600 pytest tests/unit/engine/
test_fuzzed_files.py` looks longer, with `SUBLLM_TEST_FUZZ_SEED=N` at other cases, and
`SUBLLM_TEST_FUZZ_SECONDS=120 scripts/test native tests/unit/engine/test_fuzzed_files.py`
under sanitizers.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fuzz.damages import DAMAGES, damage
from oracles.packed_models import PackedMemory, store_model
from oracles.tiny_models import MemorySource

from subllm.kernels import native
from subllm.models.arch.registry import spec_from_config
from subllm.models.arch.tensors import tensor_shapes

TESTS = Path(__file__).parents[2]
SECONDS = float(os.environ.get("SUBLLM_TEST_FUZZ_SECONDS", "4"))
SEED = os.environ.get("SUBLLM_TEST_FUZZ_SEED", "0")

# Sizes that fill no tile, block or group; columns are multiples of 16, as 8:16 wants them.
SHAPE = {
    "vocab_size": 267,
    "hidden_size": 144,
    "intermediate_size": 272,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 18,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
}
MODELS = [  # model type, value type, pattern, whether the head is the embedding
    ("qwen2", "int8", "8:16", True),
    ("llama", "int4", "8:16", False),
    ("llama", "bf16", "8:16", True),
    ("llama", "int8", "50%", False),
    ("qwen2", "int4", "50%", True),
    ("llama", "bf16", "50%", False),
    ("llama", "int8", "dense", True),
    ("qwen2", "int4", "dense", False),
    ("llama", "bf16", "dense", True),
]


def model(kind: str, values: str, pattern: str, tied: bool) -> PackedMemory:
    spec = spec_from_config({**SHAPE, "model_type": kind, "tie_word_embeddings": tied})
    rng = np.random.default_rng(0)
    tensors = {
        name: (rng.normal(0, 0.1, shape) + ("norm" in name)).astype(np.float32)
        for name, shape in tensor_shapes(spec).items()
    }
    return PackedMemory(MemorySource(spec, tensors), values, pattern)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("fuzz")
    roots = [folder / f"{kind}-{values}-{index}" for index, (kind, values, *_) in enumerate(MODELS)]
    for root, kind in zip(roots, MODELS, strict=True):
        store_model(root, model(*kind))
    return roots


@pytest.mark.parametrize("isa", native.core().isas())
def test_damaged_files_never_crash(stores: list[Path], isa: str) -> None:
    seconds = SECONDS / len(native.core().isas())
    command = [sys.executable, "-m", "fuzz.packed_models", *map(str, stores)]
    done = subprocess.run(
        [*command, "--seed", SEED, "--seconds", str(seconds)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(TESTS), "SUBLLM_ISA": isa},
    )
    case = (stores[0].parent / "case.json").read_text().strip()
    assert done.returncode == 0, f"{isa}: {case} ended with {done.returncode}\n{done.stderr}"
    assert done.stderr == ""
    found = json.loads(done.stdout)
    print(isa, json.dumps(found))
    assert found["ends"]["open"] > 0  # most damage is noticed while loading,
    assert found["ends"]["ran"] > 0  # some makes no difference to the form


def test_every_damage_gives_the_same_file_for_the_same_seed(stores: list[Path]) -> None:
    whole, other = (next((root / "blobs").iterdir()).read_bytes() for root in stores[:2])
    seen = set()
    for seed in range(150):
        name, first = damage(random.Random(seed), whole, other)
        assert damage(random.Random(seed), whole, other) == (name, first)
        seen.add(name)
    assert seen == set(DAMAGES)
