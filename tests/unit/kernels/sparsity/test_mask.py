"""Packed masks."""

from __future__ import annotations

import numpy as np
import pytest

from subllm.errors import PatternError
from subllm.kernels.sparsity.mask import (
    count,
    fits,
    jaccard_distance,
    pack_bits,
    pack_bits_reference,
    select,
    unpack_bits,
)
from subllm.kernels.sparsity.pattern import Pattern

SHAPES = [(1, 1), (7, 63), (8, 64), (9, 65), (9, 576), (64, 128), (200, 70)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_round_trip(shape: tuple[int, int], density: float) -> None:
    mask = np.random.default_rng(3).random(shape) < density
    bits = pack_bits(mask)
    assert bits.ctypes.data % 64 == 0
    assert np.array_equal(bits, pack_bits_reference(mask))
    assert np.array_equal(pack_bits(mask, threads=3), bits)
    assert np.array_equal(unpack_bits(bits, *shape), mask)
    assert count(bits) == mask.sum()
    assert fits(bits, *shape, Pattern.parse("50%"))


def test_where_a_bit_lies() -> None:
    mask = np.zeros((9, 65), np.bool_)
    mask[0, 0] = mask[7, 63] = mask[8, 64] = True
    bits = pack_bits(mask)
    assert bits.shape == (2, 2, 8)
    assert {tuple(int(i) for i in at): int(bits[tuple(at)]) for at in np.argwhere(bits)} == {
        (0, 0, 0): 1,
        (0, 0, 7): 1 << 63,
        (1, 1, 0): 1,
    }


@pytest.mark.parametrize("shape", [(9, 48), (8, 64), (3, 576)])
@pytest.mark.parametrize("pattern", ["2:4", "8:16", "1:16"])
def test_fits_sees_every_flipped_bit(shape: tuple[int, int], pattern: str) -> None:
    scores = np.random.default_rng(5).standard_normal(shape, np.float32)
    parsed = Pattern.parse(pattern)
    bits = pack_bits(select(scores, parsed))
    assert fits(bits, *shape, parsed)
    for tile, block, row in np.ndindex(bits.shape):
        for bit in (0, 31, 47, 48, 63):
            changed = bits.copy()
            changed[tile, block, row] ^= np.uint64(1 << bit)
            assert not fits(changed, *shape, parsed)


def test_jaccard_distance() -> None:
    def bits(*columns: int) -> np.ndarray:
        mask = np.zeros((1, 8), np.bool_)
        mask[0, list(columns)] = True
        return pack_bits(mask)

    assert jaccard_distance(bits(0, 1, 2), bits(0, 1, 2)) == 0
    assert jaccard_distance(bits(0, 1), bits(2, 3)) == 1
    assert jaccard_distance(bits(0, 1, 2), bits(1, 2, 3)) == 0.5
    assert jaccard_distance(bits(), bits()) == 0
    with pytest.raises(PatternError, match="one base"):
        jaccard_distance(bits(0), pack_bits(np.ones((9, 8), np.bool_)))


def test_sizes_that_differ() -> None:
    bits = pack_bits(np.ones((8, 64), np.bool_))
    with pytest.raises(PatternError, match="does not fit"):
        unpack_bits(bits, 9, 64)
    with pytest.raises(PatternError, match="bool matrix"):
        pack_bits(np.ones((8, 64), np.uint8))  # type: ignore[arg-type]
