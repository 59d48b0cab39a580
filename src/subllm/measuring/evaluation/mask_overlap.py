"""Which weights several sub-models of one base keep, counted on their packed masks.

Only mask planes are read, in place: a popcount of ANDs, all pairs of one matrix at a time
and in slices that stay in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations_with_replacement, zip_longest

import numpy as np
import numpy.typing as npt

from subllm.errors import PatternError, UsageError, WeightsError
from subllm.kernels.sparsity.layout import BITS
from subllm.kernels.sparsity.mask import Bits, pack_bits
from subllm.measuring.report.masks.records import (
    ComparedModel,
    Comparison,
    ComparisonHeader,
    MatrixCounts,
)
from subllm.models.arch.spec import ArchSpec
from subllm.models.store.manifest import ModelManifest, TensorEntry
from subllm.models.store.model_files import ModelFiles
from subllm.models.store.store import Store
from subllm.progress import NullProgress, Progress, bar

SLICE_WORDS = 1 << 15  # 256 KiB of each mask


@dataclass(frozen=True, eq=False)
class MaskCounts:
    """Kept weights of k masks over the same matrix.

    both     int64 [k, k]: kept by i and by j; the diagonal is what i keeps
    alone    int64 [k]: kept by i and no other
    by_all, by_any
    """

    both: npt.NDArray[np.int64]
    alone: npt.NDArray[np.int64]
    by_all: int
    by_any: int


@dataclass(frozen=True)
class Matrix:
    """One prunable matrix that all compared models have."""

    layer: int
    role: str
    name: str
    shape: tuple[int, int]


def count_overlap(masks: Sequence[Bits]) -> MaskCounts:
    """Counts of packed masks, one or more, of one shape [row_tiles, col_blocks, 8].

    Raises PatternError when the shapes differ.
    """
    shapes = {mask.shape for mask in masks}
    if len(shapes) != 1:
        raise PatternError(
            f"masks of shapes {', '.join(map(str, sorted(shapes)))} cannot be compared; "
            "compare models of one base"
        )
    flat = [np.ascontiguousarray(mask).reshape(-1) for mask in masks]
    k, size = len(flat), flat[0].size
    both, alone = np.zeros((k, k), np.int64), np.zeros(k, np.int64)
    by_all = by_any = 0
    counts = np.empty(min(size, SLICE_WORDS), np.uint8)

    def ones(words: npt.NDArray[np.uint64]) -> int:
        count = np.bitwise_count(words, out=counts[: words.size])
        return int(count.sum(dtype=np.uint32))

    for start in range(0, size, SLICE_WORDS):
        parts = [mask[start : start + SLICE_WORDS] for mask in flat]
        for i, j in combinations_with_replacement(range(k), 2):
            both[i, j] += ones(parts[i] & parts[j])
        every, once, twice = parts[0], parts[0], np.zeros_like(parts[0])
        for part in parts[1:]:
            twice |= once & part
            once = once | part
            every = every & part
        by_all += ones(every)
        by_any += ones(once)
        for i, part in enumerate(parts):
            alone[i] += ones(part & ~twice)
    both += np.triu(both, 1).T
    return MaskCounts(both, alone, by_all, by_any)


def full_mask(rows: int, cols: int) -> Bits:
    """The packed mask of a dense [rows, cols] matrix, which files leave out."""
    return pack_bits(np.ones((rows, cols), np.bool_))


def mask_of(files: ModelFiles, matrix: Matrix) -> Bits:
    """The packed mask of one matrix of an open model, mapped where it has one.

    Raises WeightsError when the model has no such matrix, LayoutError when it is damaged.
    """
    bits = files.tensor(matrix.name).mask
    return full_mask(*matrix.shape) if bits is None else bits


def compare_models(
    store: Store, names: Sequence[str], progress: Progress | None = None
) -> Comparison:
    """Counts of two or more models of one base, matrix by matrix.

    Patterns may differ, and a dense matrix counts as kept entirely. Raises UsageError for
    models that cannot be compared, UnknownNameError, StoreError and WeightsError as the
    store does, and WeightsError when a mask is not the one that the manifest tells of.
    """
    progress = progress or NullProgress()
    models = [store.model(name) for name in names]
    matrices = comparable_matrices(models)
    tables = [{entry.name: entry for entry in model.tensors} for model in models]
    rows: list[MatrixCounts] = []
    with ExitStack() as stack:
        files = [stack.enter_context(ModelFiles(store, model)) for model in models]
        with bar(progress, "compare", "comparing masks", len(matrices), "items"):
            for matrix in matrices:
                counts = count_overlap([mask_of(file, matrix) for file in files])
                entries = [table[matrix.name] for table in tables]
                _check_kept(models, entries, counts)
                rows.append(
                    MatrixCounts(
                        layer=matrix.layer,
                        role=matrix.role,
                        tensor=matrix.name,
                        shape=matrix.shape,
                        both=tuple(tuple(row) for row in counts.both.tolist()),
                        alone=tuple(counts.alone.tolist()),
                        by_all=counts.by_all,
                        by_any=counts.by_any,
                        bits=tuple(BITS[entry.values] for entry in entries),
                    )
                )
                progress.advance("compare")
    base = models[0].base
    compared = tuple(
        _compared(store, name, model) for name, model in zip(names, models, strict=True)
    )
    return Comparison(
        ComparisonHeader(base=base.name, base_manifest=base.manifest, models=compared), rows
    )


def comparable_matrices(models: Sequence[ModelManifest]) -> list[Matrix]:
    """The prunable matrices that the models have in common, in execution order.

    Raises UsageError unless there are two models or more, all different and with the same
    base and shapes.
    """
    first = models[0] if models else None
    if first is None or len(models) < 2:
        raise UsageError("a comparison needs two models or more; 'subllm list' shows them")
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name} is given twice; name different models")
    for other in models[1:]:
        if other.base.manifest != first.base.manifest:
            raise UsageError(_other_base(first, other))
    matrices = _matrices(first)
    for other in models[1:]:
        for ours, theirs in zip_longest(matrices, _matrices(other)):
            if ours != theirs:
                raise UsageError(
                    f"{first.name} has {_told(ours)} where {other.name} has {_told(theirs)}; "
                    "compare models of one architecture"
                )
    return matrices


def _matrices(model: ModelManifest) -> list[Matrix]:
    spec = ArchSpec.from_dict(model.arch)
    return [
        Matrix(
            layer,
            linear.role,
            f"{spec.block_prefix(layer)}{linear.name}.weight",
            (linear.out_features, linear.in_features),
        )
        for layer in range(spec.num_layers)
        for linear in spec.linears
    ]


def _told(matrix: Matrix | None) -> str:
    return f"{matrix.name} {list(matrix.shape)}" if matrix else "no matrix"


def _other_base(first: ModelManifest, other: ModelManifest) -> str:
    if other.base.name != first.base.name:
        return (
            f"{first.name} is made from {first.base.name}, {other.name} from {other.base.name}; "
            "compare models of one base"
        )
    return (
        f"{first.name} is made from {first.base.name} of {first.base.source}, {other.name} from "
        f"that of {other.base.source} (other files); extract one of them again"
    )


def _check_kept(
    models: Sequence[ModelManifest], entries: Sequence[TensorEntry], counts: MaskCounts
) -> None:
    for index, (model, entry) in enumerate(zip(models, entries, strict=True)):
        kept = int(counts.both[index, index])
        if kept != entry.kept:
            raise WeightsError(
                f"{entry.name} of {model.name} keeps {kept} weights, its manifest says "
                f"{entry.kept}; run 'subllm verify {model.name}'"
            )


def _compared(store: Store, name: str, model: ModelManifest) -> ComparedModel:
    return ComparedModel(
        name=name,
        digest=store.resolve(name),
        language=model.language,
        method=model.method.name,
        pattern=model.pattern,
        values=model.values,
        calibration=model.calibration.source if model.calibration else None,
        own_bytes=store.blobs.size(model.blobs.own),
        shared_bytes=store.blobs.size(model.blobs.shared),
        shared_blob=model.blobs.shared,
    )
