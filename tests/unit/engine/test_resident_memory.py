"""How much memory a loaded sub-model takes, and that processes share it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles.packed_models import NAME, PackedMemory, store_model
from oracles.tiny_models import MemorySource

from subllm.kernels.sparsity.mapping import large_page
from subllm.kernels.sparsity.mask import select
from subllm.kernels.sparsity.packing import PackedTensor, pack
from subllm.kernels.sparsity.pattern import Pattern
from subllm.models.arch.registry import spec_from_config
from subllm.models.arch.tensors import tensor_shapes
from subllm.models.store.store import Store

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(),
    reason="memory is measured through Linux's /proc/self/smaps_rollup",
)
MIB = 1 << 20
SHAPE = {
    "model_type": "qwen2",
    "vocab_size": 16384,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 8,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
}

PROGRAM = """
import json, sys
from pathlib import Path

import subllm.engine.backends.native, subllm.models.text.tokenizer, tokenizers
from subllm.kernels import native
from subllm.engine.computing import Computing
from subllm.engine.loader import load_engine
from subllm.engine.request import Request, SamplingParams
from subllm.models.store.store import Store

def memory():
    rollup = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return {line.split()[0][:-1]: int(line.split()[1]) * 1024 for line in rollup}

def mapped():
    '''What is resident of the blobs, added up.'''
    found, inside = {}, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            inside = "/blobs/sha256-" in line
        elif inside and words[-1] == "kB":
            found[words[0][:-1]] = found.get(words[0][:-1], 0) + int(words[1]) * 1024
    return found

native.core()
store = Store(Path(sys.argv[1]))
before = memory()["Rss"]
copied = len(sys.argv) > 3
computing = Computing(backend="native", threads=2, copy_weights=copied)
engine = load_engine(store, sys.argv[2], computing=computing)
weights = engine.resident_bytes
loaded = memory()["Rss"]
prompt = tuple(i % 256 for i in range(16))
engine.add(Request("r", prompt, SamplingParams(max_tokens=20, ignore_eos=True)))
tokens = 0
while engine.has_work():
    tokens += sum(len(event.tokens) for event in engine.step())
assert tokens == 20
kv = engine.resident_bytes - weights
now = memory()
grown = {"loading": loaded - before, "all": now["Rss"] - before}
large = now["AnonHugePages"]
print(json.dumps({"grown": grown, "weights": weights, "kv": kv, "large": large}), flush=True)
for line in sys.stdin:
    print(json.dumps(mapped()), flush=True)
"""


def packed_model() -> PackedMemory:
    """About 90 MB, with the widths of a 0.5B. Every block has the same matrices, so that
    packing takes a second."""
    spec = spec_from_config(SHAPE)
    shapes = tensor_shapes(spec)
    rng = np.random.default_rng(0)
    vectors = {n: np.ones(s, np.float32) for n, s in shapes.items() if len(s) == 1}
    model = PackedMemory(MemorySource(spec, vectors))
    made: dict[str, PackedTensor] = {}
    for name, shape in shapes.items():
        if len(shape) == 1:
            continue
        role = name.partition("layers.")[2].partition(".")[2]
        if role not in made:
            matrix = rng.standard_normal(shape, np.float32) * np.float32(0.02)
            pattern = Pattern.parse("8:16" if role else "dense")
            mask = select(np.abs(matrix), pattern) if role else None
            made[role] = pack(matrix, mask, pattern, "int8")
        model.packed[name] = made[role]
    return model


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return store_model(tmp_path_factory.mktemp("memory") / "store", packed_model())


class Loaded:
    """A process that has loaded the model and generated with it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.facts = self._read()

    def mapped(self) -> dict[str, int]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextmanager
def loaded(store: Store, *more: str) -> Iterator[Loaded]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(store.root), NAME, *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Loaded(process)
    assert process.returncode == 0


def test_a_sub_model_takes_little_more_than_its_packed_bytes(store: Store) -> None:
    blobs = store.model(NAME).blobs
    packed = store.blobs.size(blobs.own) + store.blobs.size(blobs.shared)
    assert 60 * MIB < packed < 100 * MIB
    with loaded(store) as one:
        facts = one.facts
    print(facts, packed)
    assert 0.99 * packed < facts["weights"] <= packed
    assert facts["grown"]["all"] <= 1.1 * packed + facts["kv"]
    assert facts["grown"]["all"] >= 0.7 * packed  # else the measurement missed the weights


def test_two_processes_share_the_pages(store: Store) -> None:
    with loaded(store) as first:
        alone = first.mapped()
        assert alone["Pss"] == alone["Rss"] > 40 * MIB
        with loaded(store) as second:
            both = [first.mapped(), second.mapped()]
    print(alone, both)
    for memory in both:
        assert memory["Rss"] > 40 * MIB
        assert memory["Pss"] < 0.55 * memory["Rss"]
        assert memory["Shared_Clean"] > 0.9 * memory["Rss"]
        assert memory["Anonymous"] == 0


@pytest.mark.skipif(not large_page(), reason="this system gives no large pages")
def test_weights_are_read_in_large_pages(store: Store) -> None:
    """Of a copy."""
    with loaded(store, "copied") as one:
        facts = one.facts
    print(facts)
    assert facts["large"] > 0.7 * facts["weights"]
    ends = 2 * large_page()  # of two files
    assert facts["grown"]["all"] <= 1.1 * facts["weights"] + facts["kv"] + ends
