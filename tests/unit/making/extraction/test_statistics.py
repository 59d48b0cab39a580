"""Statistics of a block's inputs."""

from __future__ import annotations

import pytest
import torch

from subllm.errors import ExtractionError
from subllm.making.extraction.blocks.tap import ACCUMULATORS, FullHessian, Tap, column_square_sums
from subllm.making.pruning.method import HESSIAN_COLUMNS, InputStatistics, Need
from subllm.models.arch.spec import ArchSpec


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


@pytest.mark.parametrize("columns", [40, HESSIAN_COLUMNS + 70])
def test_a_full_hessian_is_the_products_of_all_columns(columns: int) -> None:
    batches = torch.randn(3, 50, columns).bfloat16()
    hessian = FullHessian()
    for batch in batches:
        hessian.add(batch)
    rows = batches.reshape(-1, columns).double()
    found = hessian.value()
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), rows.T @ rows, rtol=1e-4, atol=1e-3)
    assert torch.equal(found, found.T)


class Two(torch.nn.Module):
    """q, k and v read the input, o what comes of them; the MLP is there to be counted."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = torch.nn.ModuleDict(
            {name: torch.nn.Linear(8, 8) for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
        )
        self.mlp = torch.nn.ModuleDict(
            {name: torch.nn.Linear(8, 8) for name in ("gate_proj", "up_proj", "down_proj")}
        )
        self.finished = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        attn, mlp = self.self_attn, self.mlp
        inner = attn["q_proj"](x) + attn["k_proj"](x) + attn["v_proj"](x)
        x = attn["o_proj"](inner) + 1
        x = mlp["down_proj"](mlp["gate_proj"](x) * mlp["up_proj"](x))
        self.finished += 1
        return x


class Sums:
    """A second statistic, to see that an accumulator is all it takes."""

    def __init__(self) -> None:
        self.total: torch.Tensor | float = 0.0

    def add(self, rows: torch.Tensor) -> None:
        self.total = self.total + rows.sum(0)

    def value(self) -> torch.Tensor:
        return torch.as_tensor(self.total)


def test_one_tap_feeds_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ArchSpec("llama", 8, 8, 1, 2, 2, 4, 16, 32)
    block = Two()
    batches = torch.randn(2, 3, 5, 8)

    def collected(needs: frozenset[Need]) -> dict[str, InputStatistics]:
        with torch.no_grad(), Tap(spec, block, needs) as tap:
            for batch in batches:
                tap.feed(lambda batch=batch: block(batch))
            return tap.statistics()

    only = collected(frozenset({Need.SQUARE_SUMS}))
    assert block.finished == 0, "nothing is computed after the last input"
    assert list(only) == ["attn_in", "o_in", "mlp_in", "down_in"]
    assert all(statistics.tokens == 30 for statistics in only.values())
    expected = batches.double().square().sum((0, 1, 2))
    assert torch.allclose(only["attn_in"][Need.SQUARE_SUMS], expected)

    monkeypatch.setitem(ACCUMULATORS, "sums", Sums)
    both = collected(frozenset({Need.SQUARE_SUMS, "sums"}))
    assert torch.allclose(both["attn_in"]["sums"], batches.sum((0, 1, 2)))
    for group, statistics in only.items():
        assert torch.equal(both[group][Need.SQUARE_SUMS], statistics[Need.SQUARE_SUMS]), group
    block(batches[0])
    assert block.finished == 1, "the tap has left the block"


def test_a_statistic_that_was_not_collected_is_an_error() -> None:
    with pytest.raises(ExtractionError, match="square sums of activations; calibrate"):
        InputStatistics(0)[Need.SQUARE_SUMS]
