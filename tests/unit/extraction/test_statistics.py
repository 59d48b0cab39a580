"""Statistics of a block's inputs."""

from __future__ import annotations

import pytest
import torch

from subllm.extraction.statistics import column_square_sums


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_column_square_sums_by_hand_and_without_touching_the_input(dtype: torch.dtype) -> None:
    rows = torch.tensor([[1.0, -2.0, 0.0], [3.0, 0.5, -0.0]], dtype=dtype)
    before = rows.clone()
    assert column_square_sums(rows).tolist() == [10.0, 4.25, 0.0]
    assert torch.equal(rows, before)


def test_long_sums_keep_small_terms() -> None:
    rows = torch.full((70_000, 1), 0.1, dtype=torch.bfloat16)
    exact = float(rows[0, 0]) ** 2 * len(rows)
    assert float(column_square_sums(rows)) == pytest.approx(exact, rel=1e-6)
