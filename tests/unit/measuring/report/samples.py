"""A comparison with figures that can be computed in the head."""

from __future__ import annotations

import numpy as np

from subllm.measuring.report.masks.records import (
    ComparedModel,
    Comparison,
    ComparisonHeader,
    MatrixCounts,
)
from subllm.measuring.report.masks.windows import WindowRecord, encode_array

BASE = "tiny:1m"


def model(label: str, **changes: object) -> ComparedModel:
    language = label.partition("-")[0]
    facts = {
        "name": f"{BASE}-{label}",
        "digest": f"sha256-{label}",
        "language": language,
        "method": "wanda",
        "pattern": "8:16",
        "values": "int8",
        "calibration": f"pack:{language}",
        "own_bytes": 3_000_000,
        "shared_bytes": 2_000_000,
        "shared_blob": "sha256-head",
    }
    return ComparedModel.model_validate(facts | changes)


def counts(
    layer: int, role: str, both: list[list[int]], alone: list[int], by_all: int, by_any: int,
    shape: tuple[int, int] = (8, 64), bits: tuple[int, ...] = (),
) -> MatrixCounts:  # fmt: skip
    return MatrixCounts(
        layer=layer,
        role=role,
        tensor=f"model.layers.{layer}.{role}.weight",
        shape=shape,
        both=tuple(map(tuple, both)),
        alone=tuple(alone),
        by_all=by_all,
        by_any=by_any,
        bits=bits or (8,) * len(alone),
    )


def two() -> Comparison:
    """Python and Java: layer 0 q 0.5, k 0; layer 1 q 2/3, k 0.5 apart."""
    header = ComparisonHeader(
        base=BASE, base_manifest="sha256-base", models=(model("python"), model("java"))
    )
    return Comparison(
        header,
        [
            counts(0, "q", [[300, 200], [200, 300]], [100, 100], 200, 400),
            counts(0, "k", [[128, 128], [128, 128]], [0, 0], 128, 128, (4, 64)),
            counts(1, "q", [[200, 100], [100, 200]], [100, 100], 100, 300),
            counts(1, "k", [[96, 64], [64, 96]], [32, 32], 64, 128, (4, 64)),
        ],
    )


LABELS = ("python", "python-small", "java", "general", "dense")


def five() -> Comparison:
    """One matrix of 512; python and python-small alike, java and general half of them."""
    kept = [256, 256, 256, 256, 512]
    both = [
        [256, 256, 128, 192, 256],
        [256, 256, 128, 192, 256],
        [128, 128, 256, 128, 256],
        [192, 192, 128, 256, 256],
        [256, 256, 256, 256, 512],
    ]
    assert [both[i][i] for i in range(5)] == kept
    models = (
        model("python"),
        model("python-small", values="int4", shared_blob="sha256-small", shared_bytes=1_000_000),
        model("java"),
        model("general"),
        model("dense", method="none", pattern="dense", calibration=None),
    )
    header = ComparisonHeader(base=BASE, base_manifest="sha256-base", models=models)
    matrix = counts(0, "q", both, [0, 0, 0, 0, 80], 100, 512, bits=(8, 4, 8, 8, 8))
    return Comparison(header, [matrix])


def window(labels: tuple[str, ...] = ("python", "java"), seed: int = 0) -> WindowRecord:
    rng = np.random.default_rng(seed)
    kept = rng.random((len(labels), 6, 10)) < 0.5
    weights = np.where(kept, rng.standard_normal(kept.shape), 0).astype(np.float16)
    return WindowRecord(
        models=tuple(f"{BASE}-{label}" for label in labels),
        layer=1,
        role="q",
        tensor="model.layers.1.q.weight",
        shape=(20, 70),
        at=(3, 40),
        size=(6, 10),
        kept=encode_array(kept),
        weights=encode_array(weights),
        cell=(8, 64),
        differing=encode_array(np.linspace(0, 0.5, 6).reshape(3, 2).astype(np.float16)),
    )
