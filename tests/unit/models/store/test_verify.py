"""Verification, and opening a model: with real packed files and a real tokenizer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from subllm.errors import CorruptError, LayoutError, StoreError, UsageError, WeightsError
from subllm.kernels.sparsity.layout import LAYOUT_VERSION
from subllm.kernels.sparsity.mask import select
from subllm.kernels.sparsity.packed_file import PackedWriter
from subllm.kernels.sparsity.packing import pack, unpack
from subllm.kernels.sparsity.pattern import Pattern
from subllm.models.store.collect import gc, remove
from subllm.models.store.manifest import ModelManifest, TensorEntry
from subllm.models.store.model_files import open_model
from subllm.models.store.sizes import all_sizes
from subllm.models.store.store import Store
from subllm.models.store.verify import VerifyResult, verify
from subllm.progress import NullProgress, Unit
from unit.models.store.samples import BASE, add_base, add_model, base_manifest, tokenizer_bundle

PYTHON = f"{BASE}-python"
JAVA = f"{BASE}-java"
WEIGHTS = np.random.default_rng(1).standard_normal((16, 128)).astype(np.float32)
MASK = select(np.abs(WEIGHTS), Pattern.parse("8:16"))
TENSORS = (
    TensorEntry(
        name="up", shape=(16, 128), blob="own", pattern="8:16", values="int8", kept=16 * 64
    ),
    TensorEntry(
        name="head", shape=(16, 128), blob="shared", pattern="dense", values="bf16", kept=16 * 128
    ),
    TensorEntry(name="norm", shape=(128,), blob="shared", pattern="dense", values="f32", kept=128),
)


def packed(directory: Path, own: bool, seed: float = 1.0) -> bytes:
    path = directory / "packed"
    with PackedWriter(path) as writer:
        if own:
            writer.add_packed("up", pack(WEIGHTS * np.float32(seed), MASK, "8:16", "int8"))
        else:
            writer.add_packed("head", pack(WEIGHTS, None, "dense", "bf16"))
            writer.add_vector("norm", np.ones(128, np.float32))
    return path.read_bytes()


def add(
    store: Store, name: str, own: bytes, tensors: tuple[TensorEntry, ...] = TENSORS, **more: object
) -> str:
    return add_model(
        store,
        name,
        own,
        shared=packed(store.root.parent, own=False),
        tokenizer=tokenizer_bundle(),
        tensors=tensors,
        **more,
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A base, and two models that share."""
    store = Store(tmp_path / "store")
    base = add_base(store, b"weights")
    add(store, PYTHON, packed(tmp_path, own=True), base=base)
    add(store, JAVA, packed(tmp_path, own=True, seed=2.0), base=base)
    return store


class Counting(NullProgress):
    """Keeps the total that was announced and the bytes that were told."""

    def __init__(self) -> None:
        self.total: float | None = None
        self.done = 0.0

    def start(self, key: str, title: str, total: float | None, unit: Unit) -> None:
        assert unit == "bytes"
        self.total = total

    def advance(self, key: str, amount: float = 1) -> None:
        self.done += amount


def flip(path: Path, position: int = -1) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[position] ^= 0x40
    path.write_bytes(data)


def problems(results: list[VerifyResult]) -> dict[str, list[str]]:
    return {result.name: [p.what for p in result.problems] for result in results if not result.ok}


def test_a_sound_store(store: Store) -> None:
    progress = Counting()
    results = verify(store, progress=progress)
    assert [result.name for result in results] == [BASE, JAVA, PYTHON]
    assert problems(results) == {}
    sizes = all_sizes(store)
    shared = sizes[PYTHON].shared
    assert progress.total == progress.done == sum(s.own for s in sizes.values()) + shared
    assert sum(result.checked for result in results) == progress.done


def test_a_changed_shared_blob_is_told_for_all_who_need_it(store: Store) -> None:
    flip(store.blobs.path(store.model(PYTHON).blobs.shared))
    found = problems(verify(store))
    assert found.keys() == {PYTHON, JAVA}
    assert all("does not match its digest" in what[0] for what in found.values())
    assert problems(verify(store, [BASE])) == {}


def test_a_missing_blob_and_a_cut_one(store: Store) -> None:
    store.blobs.path(store.model(PYTHON).blobs.own).unlink()
    path = store.blobs.path(store.model(JAVA).blobs.own)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    results = verify(store)
    found = problems(results)
    assert "is missing" in found[PYTHON][0]
    assert "does not match" in found[JAVA][0]
    fix = next(result for result in results if result.name == PYTHON).problems[0].fix
    assert fix == f"subllm rm {PYTHON}, then extract it again"
    with pytest.raises(StoreError, match="is missing"):
        open_model(store, PYTHON)


def test_damaged_manifests_and_sidecars(store: Store) -> None:
    flip(store.manifest_path(store.resolve(PYTHON)))
    store.manifest_path(store.resolve(BASE)).unlink()
    store.run_record_path(store.resolve(JAVA)).write_text("[]")
    results = verify(store)
    found = problems(results)
    assert "does not match its digest" in found[PYTHON][0]
    assert "is missing" in found[BASE][0]
    assert "is damaged" in found[JAVA][0]
    assert [r.problems[0].fix for r in results if r.name == BASE] == [
        f"subllm rm {BASE}, then pull it again"
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"shape": (128, 16)}, "the manifest says"),
        ({"pattern": "4:8"}, "the manifest says"),
        ({"values": "int4"}, "the manifest says"),
        ({"kept": 1}, "the manifest says"),
        ({"name": "down"}, "is only in"),
        ({"blob": "shared"}, "is only in"),
    ],
)
def test_tables_that_disagree(
    store: Store, tmp_path: Path, change: dict[str, object], expected: str
) -> None:
    tensors = (TENSORS[0].model_copy(update=change), *TENSORS[1:])
    add(store, PYTHON, packed(tmp_path, own=True), tensors)
    found = problems(verify(store))
    assert found.keys() == {PYTHON}
    assert expected in found[PYTHON][0]


def test_packed_files_and_tokenizers_that_are_none(store: Store, tmp_path: Path) -> None:
    add(store, PYTHON, b"no packed file")
    own, shared = packed(tmp_path, own=True), packed(tmp_path, own=False)
    add_model(store, JAVA, own, shared=shared, tokenizer=b"{}", tensors=TENSORS)
    found = problems(verify(store))
    assert found.keys() == {PYTHON, JAVA}
    assert "tokenizer bundle is malformed" in found[JAVA][0]


def test_files_outside(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "mine.gguf"
    outside.write_bytes(b"elsewhere")
    manifest = base_manifest(b"elsewhere", "other:1m", local=outside)
    store.set_ref("other:1m", store.put_manifest(manifest))
    assert verify(store, ["other:1m"])[0].checked == len(b"elsewhere")
    flip(outside)
    assert "mine.gguf does not match" in problems(verify(store))["other:1m"][0]
    outside.unlink()
    result = verify(store, ["other:1m"])[0]
    assert "mine.gguf is missing" in result.problems[0].what
    assert "put the file back" in result.problems[0].fix


def test_the_fix_heals(store: Store, tmp_path: Path) -> None:
    flip(store.blobs.path(store.model(PYTHON).blobs.own))
    remove(store, PYTHON)
    add(store, PYTHON, packed(tmp_path, own=True))
    assert problems(verify(store)) == {}


def test_open_model(store: Store) -> None:
    with open_model(store, PYTHON) as files:
        assert isinstance(files.manifest, ModelManifest)
        dense = unpack(files.tensor("up"))
        assert np.array_equal(dense != 0, MASK & (dense != 0))
        assert np.abs(dense - np.where(MASK, WEIGHTS, 0)).max() < 0.03
        assert files.tensor("head").shape == (16, 128)
        assert np.array_equal(files.vector("norm"), np.ones(128, np.float32))
        assert files.tokenizer().decode(files.tokenizer().encode("def f():")) == "def f():"
        norm = files.vector("norm")
        with pytest.raises(WeightsError, match="has no tensor 'q'"):
            files.tensor("q")
        with pytest.raises(WeightsError):
            files.tensor("norm")
        with pytest.raises(WeightsError):
            files.vector("up")
    assert norm.sum() == 128  # views outlive the reader
    with pytest.raises(UsageError, match="is a base"):
        open_model(store, BASE)


def test_a_changed_tokenizer_is_not_used(store: Store) -> None:
    flip(store.blobs.path(store.model(PYTHON).blobs.tokenizer))
    with open_model(store, PYTHON) as files, pytest.raises(CorruptError):
        files.tokenizer()


def test_a_newer_layout_is_refused(store: Store) -> None:
    manifest = store.model(PYTHON).model_copy(update={"layout": LAYOUT_VERSION + 1})
    store.set_ref(PYTHON, store.put_manifest(manifest))
    with pytest.raises(LayoutError, match="update subllm"):
        open_model(store, PYTHON)


def test_an_open_model_survives_its_removal(store: Store) -> None:
    with open_model(store, PYTHON) as files:
        remove(store, PYTHON)
        remove(store, JAVA)
        gc(store)
        assert unpack(files.tensor("head")).shape == (16, 128)


def test_importing_the_store_stays_light() -> None:
    heavy = ("torch", "transformers", "tokenizers", "numpy", "subllm._native")
    code = f"import sys, subllm.models.store.store; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
