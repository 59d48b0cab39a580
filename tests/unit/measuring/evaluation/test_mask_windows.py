from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracles.masked_models import BASE, add_model, matrices, random_masks

from subllm.errors import UsageError
from subllm.kernels.sparsity.mask import pack_bits
from subllm.kernels.sparsity.packing import unpack
from subllm.measuring.evaluation.mask_windows import (
    LARGEST_WINDOW,
    Window,
    differing_cells,
    mask_windows,
    middle_layer,
    window_of,
)
from subllm.models.store.model_files import open_model
from subllm.models.store.store import Store

NAMES = [f"{BASE}-python", f"{BASE}-java", f"{BASE}-dense"]


def test_a_window_is_read_from_its_text() -> None:
    assert Window.parse("32x96") == Window(32, 96, 0, 0)
    assert Window.parse("1x2+30+400") == Window(1, 2, 30, 400)


@pytest.mark.parametrize(
    "text", ["", "32", "32x", "x4", "3x4+1", "-3x4", "3x4+1+-2", "3 x 4", "٣x4"]
)
def test_other_windows_are_not_understood(text: str) -> None:
    with pytest.raises(UsageError, match="use ROWSxCOLUMNS"):
        Window.parse(text)


@pytest.mark.parametrize("text", ["0x4", "4x0", "1x65537", "999999x999999"])
def test_windows_of_nothing_or_too_much_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"1 to {LARGEST_WINDOW:,} can"):
        Window.parse(text)


def test_a_window_moves_into_the_matrix() -> None:
    assert Window(4, 6, 30, 5).inside((20, 80)) == Window(4, 6, 16, 5)
    assert Window(32, 96, 3, 3).inside((20, 80)) == Window(20, 80, 0, 0)


def test_the_middle_layer() -> None:
    assert [middle_layer(range(n)) for n in (1, 2, 3, 24)] == [0, 1, 1, 12]


@pytest.mark.parametrize("shape", [(9, 70), (20, 80), (64, 64), (1, 1)])
def test_a_window_of_a_packed_mask(shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(3).random(shape) < 0.5
    bits = pack_bits(mask)
    for top in range(0, shape[0], 3):
        for rows in range(1, shape[0] - top + 1, 4):
            left = shape[1] // 2
            cut = Window(rows, shape[1] - left, top, left)
            assert np.array_equal(
                window_of(bits, shape, cut), mask[top : top + rows, left:]
            )  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "cell"), [((9, 70), (8, 64)), ((563, 100), (16, 64)), ((3, 4200), (8, 128))]
)
def test_coarse_cells_agree_with_counting_each(
    shape: tuple[int, int], cell: tuple[int, int]
) -> None:
    rng = np.random.default_rng(1)
    masks = [rng.random(shape) < 0.6 for _ in range(3)]
    got_cell, got = differing_cells([pack_bits(mask) for mask in masks], shape)
    assert got_cell == cell
    differs = np.any(masks, axis=0) & ~np.all(masks, axis=0)
    expected = [
        [differs[r : r + cell[0], c : c + cell[1]].mean() for c in range(0, shape[1], cell[1])]
        for r in range(0, shape[0], cell[0])
    ]
    assert got == pytest.approx(np.array(expected), abs=1e-15)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    for seed, (name, pattern) in enumerate(zip(NAMES, ("8:16", "50%", "dense"), strict=True)):
        add_model(store, name, random_masks(seed, pattern), pattern)
    return store


def test_windows_hold_what_the_models_hold(store: Store) -> None:
    windows = mask_windows(store, NAMES, [2, 0], Window(24, 50, 5, 40))
    there = {name: facts for name, facts in matrices().items() if facts[0] != 1}
    assert [(w.tensor, (w.layer, w.role, w.shape)) for w in windows] == list(there.items())
    for window in windows:
        rows, cols = min(24, window.shape[0]), 50
        top, left = min(5, window.shape[0] - rows), min(40, window.shape[1] - cols)
        assert (window.at, window.size) == ((top, left), (rows, cols))
        for index, name in enumerate(NAMES):
            with open_model(store, name) as files:
                dense = unpack(files.tensor(window.tensor))
            seed, pattern = index, ("8:16", "50%", "dense")[index]
            kept = random_masks(seed, pattern)[window.tensor]
            cut = np.s_[top : top + rows, left : left + cols]
            assert np.array_equal(window.kept_array()[index], kept[cut])
            assert np.array_equal(window.weights_array()[index], dense[cut].astype(np.float16))
        assert window.differing_array().shape == (-(-window.shape[0] // 8), 2)


def test_weights_beyond_binary16_stay_finite(store: Store) -> None:
    add_model(store, NAMES[1], random_masks(1), values="bf16", scale=1e6)
    (window, *_) = mask_windows(store, NAMES[:2], [0], Window())
    weights = window.weights_array()
    assert np.isfinite(weights).all()
    assert weights.max() == np.finfo(np.float16).max


def test_a_layer_that_is_not_there(store: Store) -> None:
    with pytest.raises(UsageError, match="no layer 3; the layers are 0 to 2"):
        mask_windows(store, NAMES, [0, 3], Window())
