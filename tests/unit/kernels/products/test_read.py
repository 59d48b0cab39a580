"""The reader that the measured bandwidth comes from must read everything once."""

from __future__ import annotations

import numpy as np
import pytest

from subllm.kernels.products import ops


@pytest.mark.parametrize("count", [0, 1, 7, 8, 1000, (1 << 18) + 3, 1_000_001])
def test_sums_every_word_once(count: int) -> None:
    words = np.random.default_rng(count).integers(0, 1 << 63, count, np.uint64)
    expected = int(words.sum(dtype=np.uint64))
    for threads in (1, 2):
        assert ops.sum_words(ops.Pool(threads), words) == expected
