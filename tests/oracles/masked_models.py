"""Sub-models of one tiny base in a store, whose masks are chosen at random: no torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from subllm.kernels.sparsity.layout import LAYOUT_VERSION
from subllm.kernels.sparsity.mask import select
from subllm.kernels.sparsity.packed_file import PackedWriter
from subllm.kernels.sparsity.packing import pack
from subllm.kernels.sparsity.pattern import Pattern
from subllm.models.arch.spec import ArchSpec
from subllm.models.catalog.prompt import PromptSpec
from subllm.models.store.manifest import (
    BaseRef,
    CalibrationRecord,
    Licence,
    MethodRecord,
    ModelBlobs,
    ModelManifest,
    TensorEntry,
    sha256_of,
)
from subllm.models.store.names import split_model_name
from subllm.models.store.store import Store

BASE = "tiny:1m"
SPEC = ArchSpec(
    family="tiny",
    hidden_size=80,  # two blocks of columns, the second not full
    intermediate_size=112,
    num_layers=3,
    num_heads=4,
    num_kv_heads=1,
    head_dim=20,  # k and v: three tiles of rows, the third not full
    vocab_size=16,
    context_length=64,
)
Bools = npt.NDArray[np.bool_]


def matrices(spec: ArchSpec = SPEC) -> dict[str, tuple[int, str, tuple[int, int]]]:
    """Name of each prunable matrix -> layer, role, shape."""
    return {
        f"{spec.block_prefix(layer)}{linear.name}.weight": (
            layer,
            linear.role,
            (linear.out_features, linear.in_features),
        )
        for layer in range(spec.num_layers)
        for linear in spec.linears
    }


def random_masks(seed: int, pattern: str = "8:16", spec: ArchSpec = SPEC) -> dict[str, Bools]:
    """A mask of every matrix that follows `pattern`."""
    rng = np.random.default_rng(seed)
    return {
        name: select(rng.random(shape, np.float32), Pattern.parse(pattern))
        for name, (_, _, shape) in matrices(spec).items()
    }


def add_model(
    store: Store,
    name: str,
    masks: Mapping[str, Bools],
    pattern: str = "8:16",
    *,
    values: str = "int8",
    spec: ArchSpec = SPEC,
    base: bytes = b"base",
    kept_off_by: int = 0,
    scale: float = 1.0,
) -> ModelManifest:
    """Puts a model with these masks; its weights are those of every other one where kept.

    base         other bytes are another base under the same name
    kept_off_by  added to what the manifest says of the first matrix, to make it a liar
    scale        of all weights
    """
    rng = np.random.default_rng(99)
    entries, path = [], store.root / "own.packed"
    store.root.mkdir(parents=True, exist_ok=True)
    with PackedWriter(path) as writer:
        for index, (key, (_, _, shape)) in enumerate(matrices(spec).items()):
            weights = rng.standard_normal(shape).astype(np.float32) * np.float32(scale)
            tensor = pack(weights, None if pattern == "dense" else masks[key], pattern, values)
            writer.add_packed(key, tensor)
            kept = tensor.kept + (kept_off_by if index == 0 else 0)
            entries.append(
                TensorEntry(
                    name=key, shape=shape, blob="own", pattern=pattern,
                    values=tensor.values, kept=kept,
                )
            )  # fmt: skip
    shared = store.root / "shared.packed"
    with PackedWriter(shared) as writer:
        writer.add_vector("model.norm.weight", np.ones(spec.hidden_size, np.float32))
    parts = split_model_name(name)
    pruned = parts.language != "dense"
    source = f"pack:{parts.language}"
    with store.writing():
        blobs = ModelBlobs(
            own=store.blobs.adopt(path),
            shared=store.blobs.adopt(shared),
            tokenizer=store.blobs.put(b"tokenizer"),
        )
        manifest = ModelManifest(
            layout=LAYOUT_VERSION,
            name=name,
            language=parts.language,
            tag=parts.tag,
            base=BaseRef(
                name=parts.base,
                manifest=sha256_of(base + parts.base.encode()),
                source=f"path:{base.decode()}",
                licence=Licence(id="Apache-2.0"),
            ),
            plan=sha256_of(name.encode()),
            method=MethodRecord(name="wanda" if pruned else "none"),
            pattern=pattern,
            values=values,
            head="int8",
            calibration=CalibrationRecord(
                source=source, digest=sha256_of(b"tokens"), samples=8, seq_len=64, seed=0
            )
            if pruned
            else None,
            arch=spec.to_dict(),
            prompt=PromptSpec(context_length=64),
            tensors=tuple(entries),
            blobs=blobs,
            density=sum(e.kept for e in entries)
            / sum(r * c for _, _, (r, c) in matrices(spec).values()),
        )
        store.set_ref(name, store.put_manifest(manifest))
    return manifest
