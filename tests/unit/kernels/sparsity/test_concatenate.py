"""Stacking packed matrices equals packing the whole."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from subllm.errors import LayoutError
from subllm.kernels.sparsity.concatenate import concatenate_rows
from subllm.kernels.sparsity.mask import select
from subllm.kernels.sparsity.packing import PackedTensor, pack
from subllm.kernels.sparsity.pattern import Pattern


def packed(rows: slice, cols: int, pattern: str, values: str) -> PackedTensor:
    """Some rows of one random matrix of 300 rows, packed."""
    rng = np.random.default_rng(7)
    weights = rng.standard_normal((300, cols), np.float32)
    parsed = Pattern.parse(pattern)
    mask = None if pattern == "dense" else select(np.abs(weights), parsed)
    return pack(weights[rows], None if mask is None else mask[rows], parsed, values)


@pytest.mark.parametrize("values", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("pattern", ["dense", "8:16", "1:32", "62.5%"])
@pytest.mark.parametrize("cuts", [[0, 300], [0, 32, 64, 192, 300], [0, 288, 299]])
@pytest.mark.parametrize("cols", [64, 160])
def test_equals_packing_the_whole(values: str, pattern: str, cuts: list[int], cols: int) -> None:
    parts = [packed(slice(a, b), cols, pattern, values) for a, b in pairwise(cuts)]
    joined = concatenate_rows(parts)
    whole = packed(slice(0, cuts[-1]), cols, pattern, values)
    assert (joined.shape, joined.pattern, joined.values) == (whole.shape, pattern, values)
    for plane in ("mask", "data", "scales", "offsets"):
        have, want = getattr(joined, plane), getattr(whole, plane)
        assert (have is None) == (want is None)
        if want is not None:
            assert have.dtype == want.dtype and have.shape == want.shape
            assert have.tobytes() == want.tobytes()
            assert have.ctypes.data % 64 == 0 or plane == "offsets"
    joined.verify()


def test_refuses_parts_that_do_not_belong_together() -> None:
    rows = slice(0, 32)
    part = packed(rows, 64, "8:16", "int8")
    for other in (
        packed(rows, 128, "8:16", "int8"),
        packed(rows, 64, "4:8", "int8"),
        packed(rows, 64, "8:16", "int4"),
    ):
        with pytest.raises(LayoutError, match="different columns, pattern or values"):
            concatenate_rows([part, other])
    with pytest.raises(LayoutError, match="multiples of 32"):
        concatenate_rows([packed(slice(0, 40), 64, "8:16", "int8"), part])
    with pytest.raises(LayoutError, match="no packed matrices"):
        concatenate_rows([])


def test_refuses_offsets_beyond_32_bits() -> None:
    part = packed(slice(0, 32), 64, "50%", "int8")
    assert part.offsets is not None
    claimed = part.offsets.copy()
    claimed[-1] = 2**31 + 5
    # A plane of 128 GiB cannot be made; a broadcast zero claims its shape.
    data = np.broadcast_to(np.uint8(0), ((2**31 + 6) * 64,))
    huge = PackedTensor(
        part.shape, part.pattern, part.values, part.mask, data, part.scales, claimed
    )
    with pytest.raises(LayoutError, match="too many values"):
        concatenate_rows([huge, huge])
