"""What a comparison of masks leaves behind: counts, from which tables and pictures are made.

A file of it is JSON lines, one `ComparisonHeader` and then a `MatrixCounts` for each matrix. Counts
add up, so whatever is asked of layers or types is exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt

from subllm.errors import UsageError
from subllm.measuring.report.records import Record, parse_lines, to_lines, validated

PairKind = Literal["within", "across", "general", "dense"]
Counts = npt.NDArray[np.int64]


class ComparedModel(Record):
    """One side of a comparison; sizes in bytes.

    `own_bytes` holds masks and values of the block weights; the `shared_blob` (embedding,
    head, norms) may be that of other models too.
    """

    name: str
    digest: str
    language: str
    method: str
    pattern: str
    values: str
    calibration: str | None
    own_bytes: int
    shared_bytes: int
    shared_blob: str


class ComparisonHeader(Record):
    """`base_manifest` is the digest of the base that all models were made from."""

    record: Literal["mask comparison"] = "mask comparison"
    version: Literal[1] = 1
    base: str
    base_manifest: str
    models: tuple[ComparedModel, ...]


class MatrixCounts(Record):
    """How many weights of one matrix the models keep, in the order of the header.

    both[i][j]   by i and by j (i = j: by i)
    alone[i]     by i and no other
    by_all, by_any
    bits[i]      of one kept value in model i
    """

    record: Literal["matrix"] = "matrix"
    layer: int
    role: str  # q k v o gate up down
    tensor: str
    shape: tuple[int, int]
    both: tuple[tuple[int, ...], ...]
    alone: tuple[int, ...]
    by_all: int
    by_any: int
    bits: tuple[int, ...]


@dataclass(frozen=True)
class Pair:
    """Two models by index.

    kind   whether their languages are the same ("within"), different ("across"), or one is
           general or dense
    alike  whether pattern and method are the same, so that only calibration tells them apart
    """

    a: int
    b: int
    kind: PairKind
    alike: bool


@dataclass(frozen=True, eq=False)
class Overlap:
    """Counts of some matrices together; fields as in `MatrixCounts`.

    expected   [k, k]: what `both` would be on average, were the masks independent
    kept_bits  [k]: bits of the kept values; alone_bits, by_all_bits likewise
    """

    weights: int
    both: Counts
    alone: Counts
    by_all: int
    by_any: int
    expected: npt.NDArray[np.float64]
    kept_bits: Counts
    alone_bits: Counts
    by_all_bits: Counts

    def distance(self, a: int, b: int) -> float:
        """Jaccard distance of the kept weights: 0 the same, 1 nothing in common."""
        return _distance(self.both[a, a], self.both[b, b], self.both[a, b])

    def chance(self, a: int, b: int) -> float:
        """The distance of independent masks with these shares in each matrix."""
        return _distance(self.both[a, a], self.both[b, b], self.expected[a, b])

    def density(self, a: int) -> float:
        return float(self.both[a, a] / self.weights)

    def share(self, a: int, b: int) -> float:
        """Of the weights that a keeps, the share that b keeps too."""
        return float(self.both[a, b] / self.both[a, a]) if self.both[a, a] else 0.0


def _distance(a: float, b: float, both: float) -> float:
    union = a + b - both
    return float(1 - both / union) if union else 0.0


class Comparison:
    """A header and its matrices. Raises UsageError when they do not fit together."""

    def __init__(self, header: ComparisonHeader, matrices: Iterable[MatrixCounts]) -> None:
        self.header = header
        self.matrices = tuple(matrices)
        self._overlaps: dict[tuple[int | None, str | None], Overlap] = {}
        count = len(header.models)
        for matrix in self.matrices:
            sides = [len(matrix.both), len(matrix.alone), len(matrix.bits), *map(len, matrix.both)]
            if set(sides) != {count}:
                raise UsageError(
                    f"the record of {matrix.tensor} does not count {count} models; "
                    "run 'subllm compare' again"
                )
        if not self.matrices:
            raise UsageError("a comparison without matrices; run 'subllm compare' again")

    @property
    def models(self) -> tuple[ComparedModel, ...]:
        return self.header.models

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Names of the models without what they have in common."""
        prefix = self.header.base + "-"
        return tuple(model.name.removeprefix(prefix) for model in self.models)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(matrix.layer for matrix in self.matrices))

    @cached_property
    def roles(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(matrix.role for matrix in self.matrices))

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        return tuple(
            _pair(a, b, self.models[a], self.models[b])
            for a, b in combinations(range(len(self.models)), 2)
        )

    @cached_property
    def generals(self) -> tuple[int, ...]:
        """Indices of the models that were calibrated on everything."""
        return tuple(i for i, model in enumerate(self.models) if model.language == "general")

    def overlap(self, *, layer: int | None = None, role: str | None = None) -> Overlap:
        """Of all matrices, or those of one layer, one role or both (at least one there)."""
        if (layer, role) not in self._overlaps:
            self._overlaps[layer, role] = self._sum(layer, role)
        return self._overlaps[layer, role]

    def _sum(self, layer: int | None, role: str | None) -> Overlap:
        chosen = [
            m
            for m in self.matrices
            if (layer is None or m.layer == layer) and (role is None or m.role == role)
        ]
        weights = np.array([m.shape[0] * m.shape[1] for m in chosen], np.int64)
        both = np.array([m.both for m in chosen], np.int64)
        kept = np.einsum("mii->mi", both)
        alone = np.array([m.alone for m in chosen], np.int64)
        by_all = np.array([m.by_all for m in chosen], np.int64)
        bits = np.array([m.bits for m in chosen], np.int64)
        independent = kept[:, :, None] * kept[:, None, :] / weights[:, None, None]
        return Overlap(
            weights=int(weights.sum()),
            both=both.sum(axis=0),
            alone=alone.sum(axis=0),
            by_all=int(by_all.sum()),
            by_any=sum(m.by_any for m in chosen),
            expected=independent.sum(axis=0),
            kept_bits=(kept * bits).sum(axis=0),
            alone_bits=(alone * bits).sum(axis=0),
            by_all_bits=(by_all[:, None] * bits).sum(axis=0),
        )

    def mean_distance(self, kind: PairKind, overlap: Overlap) -> float | None:
        """Of the pairs of one kind that are alike; None when there is none. What a pattern or
        a method changes would hide what the language does."""
        found = [
            overlap.distance(pair.a, pair.b)
            for pair in self.pairs
            if pair.kind == kind and pair.alike
        ]
        return sum(found) / len(found) if found else None

    def to_lines(self) -> str:
        """The file of this comparison; `read_comparison` reads it."""
        return to_lines((self.header, *self.matrices))


def _pair(a: int, b: int, first: ComparedModel, second: ComparedModel) -> Pair:
    alike = (first.pattern, first.method) == (second.pattern, second.method)
    return Pair(a, b, _kind(first.language, second.language), alike)


def _kind(a: str, b: str) -> PairKind:
    if "dense" in (a, b):
        return "dense"
    if a == b:
        return "within"
    return "general" if "general" in (a, b) else "across"


def read_comparison(lines: str, *, where: str = "records") -> Comparison:
    """Raises UsageError naming the line that is malformed; `where` is the file's name."""
    rows = parse_lines(lines, where)
    if not rows:
        raise UsageError(f"{where} is empty; run 'subllm compare --out DIR' to make it")
    header = validated(ComparisonHeader, rows[0], f"{where}:1")
    matrices = [
        validated(MatrixCounts, row, f"{where}:{number}") for number, row in enumerate(rows[1:], 2)
    ]
    return Comparison(header, matrices)
