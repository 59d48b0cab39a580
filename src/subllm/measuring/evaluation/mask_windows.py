"""Pieces of the compared matrices to look at: a window in full, the whole in coarse cells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from subllm.errors import UsageError
from subllm.kernels.sparsity.layout import TILE_COLS, TILE_ROWS
from subllm.kernels.sparsity.mask import Bits, unpack_bits
from subllm.kernels.sparsity.packing import unpack_rows
from subllm.measuring.evaluation.mask_overlap import Matrix, comparable_matrices, mask_of
from subllm.measuring.report.masks.windows import WindowRecord, encode_array
from subllm.models.store.model_files import ModelFiles
from subllm.models.store.store import Store

MOST_CELLS = 64  # of the coarse picture, along each side
LARGEST_WINDOW = 1 << 16  # weights; more do not fit a screen


@dataclass(frozen=True)
class Window:
    """`rows` x `cols` weights from row `top` and column `left` on.

    One that reaches over the edge of a matrix is moved inside, and cut to its size.
    """

    rows: int = 32
    cols: int = 96
    top: int = 0
    left: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads "32x96" or "32x96+512+0" (+row+column). Raises UsageError."""
        match = re.fullmatch(r"(\d{1,6})x(\d{1,6})(?:\+(\d{1,9})\+(\d{1,9}))?", text, re.ASCII)
        if match is None:
            raise UsageError(
                f"window {text!r} is not understood; use ROWSxCOLUMNS+ROW+COLUMN, "
                "as in 32x96 or 32x96+512+0"
            )
        rows, cols, top, left = (int(part or 0) for part in match.groups())
        if not 0 < rows * cols <= LARGEST_WINDOW:
            raise UsageError(
                f"a window of {rows * cols:,} weights cannot be drawn; 1 to {LARGEST_WINDOW:,} can"
            )
        return cls(rows, cols, top, left)

    def inside(self, shape: tuple[int, int]) -> Window:
        """This window within a matrix of that shape."""
        rows, cols = min(self.rows, shape[0]), min(self.cols, shape[1])
        return Window(rows, cols, min(self.top, shape[0] - rows), min(self.left, shape[1] - cols))


def middle_layer(layers: Sequence[int]) -> int:
    return layers[len(layers) // 2]


def mask_windows(
    store: Store, names: Sequence[str], layers: Sequence[int], window: Window
) -> list[WindowRecord]:
    """The window of every matrix of these layers, as each of the models keeps it.

    Raises what `compare_models` raises, and UsageError for a layer that is not there.
    """
    models = [store.model(name) for name in names]
    matrices = comparable_matrices(models)
    there = {matrix.layer for matrix in matrices}
    for layer in layers:
        if layer not in there:
            raise UsageError(f"there is no layer {layer}; the layers are 0 to {max(there)}")
    chosen = [matrix for matrix in matrices if matrix.layer in layers]
    with ExitStack() as stack:
        files = [stack.enter_context(ModelFiles(store, model)) for model in models]
        return [_window(names, files, matrix, window.inside(matrix.shape)) for matrix in chosen]


def _window(
    names: Sequence[str], files: Sequence[ModelFiles], matrix: Matrix, window: Window
) -> WindowRecord:
    masks = [mask_of(file, matrix) for file in files]
    rows = np.arange(window.top, window.top + window.rows, dtype=np.int64)
    cols = slice(window.left, window.left + window.cols)
    weights = [unpack_rows(file.tensor(matrix.name), rows)[:, cols] for file in files]
    cell, differing = differing_cells(masks, matrix.shape)
    # Binary16 holds any weight of a model that works; a larger one would be drawn as its limit.
    limit = float(np.finfo(np.float16).max)
    return WindowRecord(
        models=tuple(names),
        layer=matrix.layer,
        role=matrix.role,
        tensor=matrix.name,
        shape=matrix.shape,
        at=(window.top, window.left),
        size=(window.rows, window.cols),
        kept=encode_array(np.stack([window_of(mask, matrix.shape, window) for mask in masks])),
        weights=encode_array(np.stack(weights).clip(-limit, limit).astype(np.float16)),
        cell=cell,
        differing=encode_array(differing.astype(np.float16)),
    )


def window_of(bits: Bits, shape: tuple[int, int], window: Window) -> npt.NDArray[np.bool_]:
    """bool [rows, cols]: the part of a packed mask that lies in the window."""
    first, last = window.top // TILE_ROWS, -(-(window.top + window.rows) // TILE_ROWS)
    above = first * TILE_ROWS
    rows = min(last * TILE_ROWS, shape[0]) - above
    kept = unpack_bits(bits[first:last], rows, shape[1])
    top = window.top - above
    return kept[top : top + window.rows, window.left : window.left + window.cols]


def differing_cells(
    masks: Sequence[Bits], shape: tuple[int, int]
) -> tuple[tuple[int, int], npt.NDArray[np.float64]]:
    """The size of a coarse cell, and for every cell the share of its weights that some
    masks keep and some drop. Cells are whole tiles, at most MOST_CELLS along each side."""
    some, every = masks[0], masks[0]
    for mask in masks[1:]:
        some, every = some | mask, every & mask
    differing = np.bitwise_count(some & ~every).astype(np.int64)
    tiles, blocks, _ = differing.shape
    by_block = differing.sum(axis=2)
    cell = (
        TILE_ROWS * -(-tiles // MOST_CELLS),
        TILE_COLS * -(-blocks // MOST_CELLS),
    )
    counts = np.add.reduceat(by_block, np.arange(0, tiles, cell[0] // TILE_ROWS), axis=0)
    counts = np.add.reduceat(counts, np.arange(0, blocks, cell[1] // TILE_COLS), axis=1)
    return cell, counts / np.outer(_sides(shape[0], cell[0]), _sides(shape[1], cell[1]))


def _sides(length: int, step: int) -> npt.NDArray[np.int64]:
    """How many of `length` rows or columns every cell of `step` has: [8, 8, 3]."""
    return np.diff(np.append(np.arange(0, length, step), length))
