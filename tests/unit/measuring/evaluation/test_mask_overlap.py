from __future__ import annotations

import dataclasses
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from oracles.masked_models import BASE, SPEC, add_model, matrices, random_masks

from subllm.errors import PatternError, SubllmError, UnknownNameError, UsageError, WeightsError
from subllm.kernels.sparsity.mask import pack_bits
from subllm.measuring.evaluation import mask_overlap
from subllm.measuring.evaluation.mask_overlap import compare_models, count_overlap, full_mask
from subllm.models.store.store import Store
from subllm.progress import NullProgress

PYTHON, JAVA, GENERAL = (f"{BASE}-{language}" for language in ("python", "java", "general"))
SHAPES = [(1, 1), (8, 64), (9, 70), (17, 128), (23, 200), (3, 65)]


def reference(masks: list[np.ndarray]) -> tuple[list[list[int]], list[int], int, int]:
    """Counts by sets of places."""
    sets = [set(zip(*(side.tolist() for side in np.nonzero(mask)), strict=True)) for mask in masks]
    both = [[len(a & b) for b in sets] for a in sets]
    alone = []
    for i, one in enumerate(sets):
        others = set().union(*(other for j, other in enumerate(sets) if j != i))
        alone.append(len(one - others))
    return both, alone, len(set.intersection(*sets)), len(set().union(*sets))


def test_masks_counted_by_hand() -> None:
    a, b, c = (np.zeros((8, 64), bool) for _ in range(3))
    a[:, :32] = True  # 256
    b[:4, 16:48] = True  # 128, half of it in the columns of a
    c[0, 16:17] = True  # in both
    counts = count_overlap([pack_bits(mask) for mask in (a, b, c)])
    assert counts.both.tolist() == [[256, 64, 1], [64, 128, 1], [1, 1, 1]]
    assert counts.alone.tolist() == [192, 64, 0]
    assert (counts.by_all, counts.by_any) == (1, 320)


def test_one_mask_is_all_alone() -> None:
    counts = count_overlap([pack_bits(np.ones((8, 64), bool))])
    assert counts.both.tolist() == [[512]]
    assert (counts.alone.tolist(), counts.by_all, counts.by_any) == ([512], 512, 512)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("k", [2, 3, 5])
def test_counts_agree_with_sets_of_places(
    shape: tuple[int, int], k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(shape[0] * 10 + k)
    masks = [rng.random(shape) < density for density in np.linspace(0.1, 0.9, k)]
    for words in (3, 1 << 15):  # many slices, the last one short; one slice
        monkeypatch.setattr(mask_overlap, "SLICE_WORDS", words)
        counts = count_overlap([pack_bits(mask) for mask in masks])
        both, alone, by_all, by_any = reference(masks)
        assert counts.both.tolist() == both
        assert counts.alone.tolist() == alone
        assert (counts.by_all, counts.by_any) == (by_all, by_any)


def test_a_slice_of_ones_does_not_overflow() -> None:
    rows, cols = 8 * 64, 64 * 1024  # a slice and more of full words
    counts = count_overlap([full_mask(rows, cols)] * 2)
    assert counts.both.tolist() == [[rows * cols] * 2] * 2
    assert counts.alone.tolist() == [0, 0]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_dense_mask_keeps_everything_inside_the_matrix(shape: tuple[int, int]) -> None:
    assert np.array_equal(full_mask(*shape), pack_bits(np.ones(shape, bool)))


def test_masks_of_other_shapes_are_refused() -> None:
    with pytest.raises(PatternError, match="compare models of one base"):
        count_overlap([full_mask(8, 64), full_mask(8, 65)])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_models_agree_with_sets_of_places_in_every_matrix(store: Store) -> None:
    kinds = {
        PYTHON: ("8:16", "int8"),
        f"{PYTHON}-half": ("50%", "int4"),
        JAVA: ("2:4", "bf16"),
        f"{BASE}-dense": ("dense", "int8"),
    }
    masks = {}
    for seed, (name, (pattern, values)) in enumerate(kinds.items()):
        masks[name] = random_masks(seed, pattern)
        add_model(store, name, masks[name], pattern, values=values)
    comparison = compare_models(store, list(kinds))
    assert [(m.tensor, (m.layer, m.role, m.shape)) for m in comparison.matrices] == list(
        matrices().items()
    )
    for matrix in comparison.matrices:
        kept = [masks[name][matrix.tensor] for name in kinds]
        both, alone, by_all, by_any = reference(kept)
        assert [list(row) for row in matrix.both] == both
        assert list(matrix.alone) == alone
        assert (matrix.by_all, matrix.by_any) == (by_all, by_any)
        assert matrix.bits == (8, 4, 16, 8)
    total = comparison.overlap()
    for a, b in combinations(range(len(kinds)), 2):
        ours, theirs = (np.concatenate([m.ravel() for m in masks[n].values()])
                        for n in (list(kinds)[a], list(kinds)[b]))  # fmt: skip
        expected = 1 - (ours & theirs).sum() / (ours | theirs).sum()
        assert total.distance(a, b) == pytest.approx(expected, abs=1e-15)


def test_the_header_tells_what_was_compared(store: Store) -> None:
    python = add_model(store, PYTHON, random_masks(0))
    add_model(store, GENERAL, random_masks(1))
    header = compare_models(store, [PYTHON, GENERAL]).header
    assert (header.base, header.base_manifest) == (BASE, python.base.manifest)
    first, second = header.models
    assert (first.name, first.digest) == (PYTHON, store.resolve(PYTHON))
    assert (first.language, first.method, first.pattern) == ("python", "wanda", "8:16")
    assert (first.values, first.calibration) == ("int8", "pack:python")
    assert first.own_bytes == store.blobs.path(python.blobs.own).stat().st_size
    assert first.shared_bytes == store.blobs.path(python.blobs.shared).stat().st_size
    assert first.shared_blob == second.shared_blob == python.blobs.shared


def test_equal_masks_have_no_distance_whatever_the_values(store: Store) -> None:
    masks = random_masks(0)
    add_model(store, PYTHON, masks)
    add_model(store, f"{PYTHON}-small", masks, values="int4", scale=3.0)
    comparison = compare_models(store, [PYTHON, f"{PYTHON}-small"])
    total = comparison.overlap()
    assert total.distance(0, 1) == 0
    assert total.by_all == total.by_any == total.both[0, 0]
    assert total.alone.tolist() == [0, 0]


class Heard(NullProgress):
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def start(self, key: str, title: str, total: float | None, unit: object) -> None:
        self.calls.append(("start", total, unit))

    def advance(self, key: str, amount: float = 1) -> None:
        self.calls.append(("advance", amount))

    def finish(self, key: str) -> None:
        self.calls.append(("finish",))


def test_progress_counts_matrices(store: Store) -> None:
    for seed, name in enumerate((PYTHON, JAVA)):
        add_model(store, name, random_masks(seed))
    heard = Heard()
    compare_models(store, [PYTHON, JAVA], heard)
    assert heard.calls == [("start", 21, "items"), *[("advance", 1)] * 21, ("finish",)]


def add_unfit(store: Store, kind: str) -> None:
    """A Java model that cannot be compared with the Python one."""
    if kind == "base":
        add_model(store, "other:1m-java", random_masks(1))
    elif kind == "pull":
        add_model(store, JAVA, random_masks(1), base=b"again")
    elif kind == "shape":
        wide = dataclasses.replace(SPEC, intermediate_size=128)
        add_model(store, JAVA, random_masks(1, spec=wide), spec=wide)
    elif kind == "layers":
        short = dataclasses.replace(SPEC, num_layers=2, sliding_layers=())
        add_model(store, JAVA, random_masks(1, spec=short), spec=short)
    elif kind == "liar":
        add_model(store, JAVA, random_masks(1), kept_off_by=1)
    else:
        add_model(store, JAVA, random_masks(1))


@pytest.mark.parametrize(
    ("kind", "names", "error", "message"),
    [
        ("", [PYTHON], UsageError, "needs two models or more"),
        ("", [], UsageError, "needs two models or more"),
        ("", [PYTHON, JAVA, PYTHON], UsageError, f"{PYTHON} is given twice"),
        ("", [PYTHON, f"{BASE}-jave"], UnknownNameError, f"did you mean {JAVA}"),
        ("base", [PYTHON, "other:1m-java"], UsageError, "from tiny:1m, other:1m-java from o"),
        ("pull", [PYTHON, JAVA], UsageError, "tiny:1m of path:base, tiny:1m-java from that of pa"),
        ("shape", [PYTHON, JAVA], UsageError, r"gate_proj.weight \[112, 80\] where tiny:1m-java h"),
        ("layers", [PYTHON, JAVA], UsageError, "layers.2.* where tiny:1m-java has no matrix"),
        ("layers", [JAVA, PYTHON], UsageError, f"{JAVA} has no matrix where {PYTHON} has model.l"),
        ("liar", [PYTHON, JAVA], WeightsError, f"run 'subllm verify {JAVA}'"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_told(
    kind: str, names: list[str], error: type[SubllmError], message: str, store: Store
) -> None:
    add_model(store, PYTHON, random_masks(0))
    add_unfit(store, kind)
    with pytest.raises(error, match=message) as caught:
        compare_models(store, names)
    assert "\n" not in str(caught.value)
