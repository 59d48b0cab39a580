"""Wanda and magnitude against hand-computed cases and a plain reference."""

from __future__ import annotations

import pytest
import torch
from oracles.plain_wanda import drop_mask

from subllm.errors import ExtractionError, PatternError, UnknownNameError
from subllm.pruning.choose import choose, choose_by_sorting
from subllm.pruning.method import InputStatistics
from subllm.pruning.registry import get_method, method_names
from subllm.pruning.wanda import scores
from subllm.sparsity.pattern import Pattern


def test_wanda_by_hand() -> None:
    # Norms 1, 2, 3, 4: scores of row 0 are 4, 6, 6, 4; the ties drop the lower column.
    weight = torch.tensor([[4.0, -3.0, 2.0, -1.0], [-1.0, 1.0, 1.0, -1.0]])
    statistics = InputStatistics(1, torch.tensor([1.0, 4.0, 9.0, 16.0], dtype=torch.float64))
    pruned = get_method("wanda").prune(weight, statistics, Pattern.parse("50%"))
    assert pruned.weight is None
    assert pruned.mask.tolist() == [[False, True, True, False], [False, False, True, True]]
    pruned = get_method("wanda").prune(weight, statistics, Pattern.parse("2:4"))
    assert pruned.mask.tolist() == [[False, True, True, False], [False, False, True, True]]
    three = get_method("wanda").prune(weight, statistics, Pattern.parse("25%"))
    assert three.mask.tolist() == [[False, True, True, True], [False, True, True, True]]


def test_wanda_differs_from_magnitude_where_activations_say_so() -> None:
    weight = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    statistics = InputStatistics(1, torch.tensor([0.0, 0.0, 100.0, 1e6], dtype=torch.float64))
    half = Pattern.parse("50%")
    assert get_method("wanda").prune(weight, statistics, half).mask.tolist() == [[0, 0, 1, 1]]
    assert get_method("magnitude").prune(weight, statistics, half).mask.tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize("pattern", ["50%", "30%", "2:4", "4:8", "8:16", "1:4", "16:32"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_masks_equal_the_plain_implementation_bit_for_bit(pattern: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(37, 96, generator=generator).to(dtype)  # bfloat16 makes ties
    sums = torch.rand(96, generator=generator, dtype=torch.float64) * 100
    parsed = Pattern.parse(pattern)
    mask = get_method("wanda").prune(weight, InputStatistics(5, sums), parsed).mask
    ratio = parsed.percent / 100 if parsed.kind == "unstructured" else None
    expected = ~drop_mask(scores(weight, sums), ratio, parsed.n or 0, parsed.m or 0)
    assert torch.equal(mask, expected)
    assert torch.equal(choose_by_sorting(scores(weight, sums), parsed), expected)


@pytest.mark.parametrize(("pattern", "kept"), [("50%", 48), ("33%", 65), ("2:4", 48), ("3:8", 36)])
def test_every_row_keeps_exactly_as_many(pattern: str, kept: int) -> None:
    values = torch.rand(11, 96)
    assert (choose(values, Pattern.parse(pattern)).sum(1) == kept).all()


def test_all_scores_equal_drops_the_lower_columns() -> None:
    ones = torch.ones(2, 8)
    assert choose(ones, Pattern.parse("2:4")).tolist() == [[0, 0, 1, 1, 0, 0, 1, 1]] * 2
    assert choose(ones, Pattern.parse("50%")).tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]] * 2


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ExtractionError, match="calibrate"):
        get_method("wanda").prune(torch.ones(2, 4), InputStatistics(0), Pattern.parse("2:4"))
    with pytest.raises(PatternError):
        choose(torch.ones(2, 6), Pattern.parse("2:4"))
    with pytest.raises(UnknownNameError, match="wanda"):
        get_method("wandas")
    assert set(method_names()) == {"wanda", "magnitude"}
