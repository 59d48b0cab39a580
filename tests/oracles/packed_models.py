"""Tiny models in packed form: in memory, and in a store."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from oracles.tiny_models import MemorySource, oracle, source, tokenizer
from subllm.kernels.sparsity.layout import LAYOUT_VERSION
from subllm.kernels.sparsity.mask import select
from subllm.kernels.sparsity.packed_file import PackedWriter
from subllm.kernels.sparsity.packing import PackedTensor, pack, unpack
from subllm.kernels.sparsity.pattern import Pattern
from subllm.kernels.sparsity.screen import Screen, build_screen
from subllm.models.arch.spec import ArchSpec
from subllm.models.catalog.prompt import PromptSpec
from subllm.models.store.manifest import (
    BaseRef,
    Licence,
    MethodRecord,
    ModelBlobs,
    ModelManifest,
    TensorEntry,
    sha256_of,
)
from subllm.models.store.names import split_model_name
from subllm.models.store.store import Store

NAME = "tiny:1m-python"
# As many as are prime to the matrices of a block: so neighbours and layers differ.
MIXED = ("8:16", "dense", "12:16", "50%", "9:16")


class PackedMemory:
    """A `PackedWeightSource` of packed copies of a model's matrices.

    Block matrices take `pattern` (their largest weights stay); embedding and head are dense.
    "mixed" gives block matrices the patterns of MIXED, in turn.
    """

    screened = False  # whether the head has a screening plane

    def __init__(self, given: MemorySource, values: str = "bf16", pattern: str = "dense") -> None:
        self.spec: ArchSpec = given.spec
        self.vectors = {k: t for k, t in given.tensors.items() if t.ndim == 1}
        self.packed: dict[str, PackedTensor] = {}
        turns = cycle(MIXED)
        for name, matrix in given.tensors.items():
            if matrix.ndim == 2:
                inner = pattern if name.startswith("model.layers.") else "dense"
                inner = next(turns) if inner == "mixed" else inner
                self.packed[name] = pack(matrix, _mask(matrix, inner), inner, values)

    def tensor(self, name: str) -> PackedTensor:
        return self.packed[name]

    def screen(self, name: str) -> Screen | None:
        return build_screen(self.packed[name]) if self.screened else None

    def vector(self, name: str) -> npt.NDArray[np.float32]:
        return self.vectors[name]


def _mask(matrix: npt.NDArray[np.float32], pattern: str) -> npt.NDArray[np.bool_] | None:
    if pattern == "dense":
        return None
    return select(np.abs(matrix).astype(np.float32), Pattern.parse(pattern))


def packed_oracle(
    family: str, values: str = "bf16", pattern: str = "dense", seed: int = 0, **config: Any
) -> tuple[PackedMemory, Any]:
    """Packed weights, and a transformers model in float32 with exactly those weights.

    config: attributes of the model's configuration to change.
    """
    model = oracle(family, seed, **config)
    packed = PackedMemory(source(model), values, pattern)
    state = {name: torch.from_numpy(unpack(tensor)) for name, tensor in packed.packed.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert not set(missing) & set(state)
    return packed, model


def store_model(
    root: Path, packed: PackedMemory, name: str = NAME, tokenizer_bundle: bytes | None = None
) -> Store:
    """A store that holds the model, with the tokenizer of `tiny_models` unless one is given."""
    store = Store(root)
    root.mkdir(exist_ok=True)
    tensors, files = [], {}
    for blob in ("own", "shared"):
        path = root / f"{blob}.packed"
        with PackedWriter(path) as writer:
            for key, tensor in packed.packed.items():
                if _is_own(key) == (blob == "own"):
                    writer.add_packed(key, tensor)
                    entry = (tensor.pattern, tensor.values, tensor.kept)
                    tensors.append(_entry(key, tensor.shape, blob, *entry))
            for key, vector in packed.vectors.items():
                if blob == "shared":
                    writer.add_vector(key, vector)
                    tensors.append(_entry(key, vector.shape, blob, "dense", "f32", vector.size))
        files[blob] = path.read_bytes()
        path.unlink()
    files["tokenizer"] = tokenizer_bundle or tokenizer().to_bundle()
    with store.writing():
        for data in files.values():
            store.blobs.put(data)
        digest = store.put_manifest(_manifest(name, packed, tuple(tensors), files))
        store.set_ref(name, digest)
    return store


def _is_own(name: str) -> bool:
    return name.startswith("model.layers.")


def _entry(
    name: str, shape: tuple[int, ...], blob: Any, pattern: str, values: Any, kept: int
) -> TensorEntry:
    return TensorEntry(
        name=name, shape=shape, blob=blob, pattern=pattern, values=values, kept=int(kept)
    )


def _manifest(
    name: str, packed: PackedMemory, tensors: tuple[TensorEntry, ...], files: dict[str, bytes]
) -> ModelManifest:
    return ModelManifest(
        layout=LAYOUT_VERSION,
        name=name,
        language=split_model_name(name).language,
        base=BaseRef(
            name="tiny:1m",
            manifest=sha256_of(b"base"),
            source="path:here",
            licence=Licence(id="Apache-2.0"),
        ),
        plan=sha256_of(b"plan"),
        method=MethodRecord(name="magnitude"),
        pattern="8:16",
        values="int8",
        head="int8",
        calibration=None,
        arch=packed.spec.to_dict(),
        prompt=PromptSpec(context_length=256),
        tensors=tensors,
        blobs=ModelBlobs(**{blob: sha256_of(data) for blob, data in files.items()}),
        density=0.5,
    )
