"""The screening plane of a head in plain numpy: the truth that the core is held to."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from subllm.kernels.sparsity.screen import SCREEN_COLS, SCREEN_ROWS, Screen

Floats = npt.NDArray[np.float32]
_SAMPLE_TILES = 1024


def fit_step(row: Floats) -> np.float32:
    """The step of one row, of those columns that take part."""
    magnitudes = np.abs(row)
    if not row.size:
        return np.float32(0)
    step = np.float32(0.624 * (ordered_sum(magnitudes) / row.size))
    for _ in range(16):
        large = magnitudes > 2 * step
        total = ordered_sum(magnitudes[~large]) + 3 * ordered_sum(magnitudes[large])
        fitted = np.float32(total / (row.size + 8 * int(large.sum())))
        if fitted == step:
            break
        step = fitted
    return step


def ordered_sum(values: Floats) -> float:
    """In double, one after the other, as the core adds."""
    return float(np.cumsum(values.astype(np.float64))[-1]) if values.size else 0.0


def take_codes(left: Floats, step: np.float32) -> npt.NDArray[np.int64]:
    """Codes nearest to `left`, which becomes what they leave."""
    codes = np.where(left < 0, np.where(left < -2 * step, 0, 1), np.where(left > 2 * step, 3, 2))
    left -= (2 * codes - 3).astype(np.float32) * step
    return codes


def wide_columns(weights: Floats) -> npt.NDArray[np.int32]:
    tiles = -(-len(weights) // SCREEN_ROWS)
    every = max(1, tiles // _SAMPLE_TILES)
    errors = np.zeros(weights.shape[1])
    for tile in range(0, tiles, every):
        part = np.zeros(weights.shape[1])
        for row in weights[tile * SCREEN_ROWS : (tile + 1) * SCREEN_ROWS]:
            step = fit_step(row)
            if step:
                left = row.copy()
                take_codes(left, step)
                part += (left.astype(np.float64) / np.float64(step)) ** 2
        errors += part
    order = np.argsort(-errors, kind="stable")[:SCREEN_COLS]
    return np.concatenate([order, np.full(SCREEN_COLS - len(order), -1)]).astype(np.int32)


def build(weights: Floats) -> dict[str, npt.NDArray[Any]]:
    """weights float32 [rows, cols] -> codes, steps, columns."""
    rows, cols = weights.shape
    tiles, units = -(-rows // SCREEN_ROWS), -(-cols // SCREEN_COLS)
    columns = wide_columns(weights)
    wide = columns[columns >= 0]
    others = np.setdiff1d(np.arange(cols), wide)
    codes = np.zeros((tiles * SCREEN_ROWS, (units + 2) * SCREEN_COLS), np.int64)
    steps = np.zeros(tiles * SCREEN_ROWS, np.float32)
    for r, row in enumerate(weights):
        step = steps[r] = fit_step(row[others])
        if not step:
            continue
        left = row.copy()
        at = units * SCREEN_COLS
        part = left[wide]
        codes[r, at : at + len(wide)] = take_codes(part, np.float32(2) * step)
        left[wide] = part
        codes[r, :cols] = take_codes(left, step)
        at += SCREEN_COLS
        codes[r, at : at + len(wide)] = take_codes(left[wide], np.float32(0.5) * step)
    # [tile, k, j, unit, i] -> [tile, unit, j, i] with k in the bits
    grid = codes.reshape(tiles, 4, 4, units + 2, SCREEN_COLS)
    packed = sum(grid[:, k] << (2 * k) for k in range(4))
    planes = np.ascontiguousarray(packed.transpose(0, 2, 1, 3)).astype(np.uint8)
    return {"codes": planes.reshape(tiles, units + 2, -1), "steps": steps, "columns": columns}


def multiply(screen: Screen, x: Floats) -> Floats:
    """x float32 [T, C] -> the copy's products, float32 [T, R], equal bit for bit to the core's."""
    rows, cols = screen.shape
    units = -(-cols // SCREEN_COLS)
    wide = screen.columns
    states = np.zeros((len(x), (units + 2) * SCREEN_COLS), np.float32)
    states[:, :cols] = x
    present = wide >= 0
    for i, factor in enumerate((2.0, 0.5)):
        at = (units + i) * SCREEN_COLS
        block = states[:, at : at + SCREEN_COLS]
        block[:, present] = np.float32(factor) * x[:, wide[present]]
    largest = np.abs(states).max(axis=1)
    zero = largest < 1e-30
    inverse = np.where(zero, 0, np.float32(127) / np.where(zero, 1, largest)).astype(np.float32)
    codes = np.rint(states * inverse[:, None]).astype(np.int64)
    scales = np.where(zero, 0, largest / np.float32(127)).astype(np.float32)
    tiles = screen.codes.shape[0]
    bytes_ = screen.codes.reshape(tiles, units + 2, 4, SCREEN_COLS).astype(np.int64)
    grid = np.stack([bytes_ >> (2 * k) & 3 for k in range(4)])  # [k, tile, unit, j, i]
    levels = 2 * grid.transpose(1, 0, 3, 2, 4).reshape(tiles * SCREEN_ROWS, -1) - 3
    exact = (codes @ levels.T)[:, :rows].astype(np.float32)
    return exact * (screen.steps[:rows] * scales[:, None])
