"""Wanda and magnitude against hand-computed cases and a plain reference."""

from __future__ import annotations

import pytest
import torch
from oracles.plain_wanda import drop_mask

from subllm.errors import ExtractionError, PatternError, UnknownNameError, UsageError
from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.pruning.choose import choose, choose_by_sorting
from subllm.making.pruning.method import InputStatistics, Need
from subllm.making.pruning.parameter import Parameter
from subllm.making.pruning.registry import get_method, method_names
from subllm.making.pruning.wanda import scores


def squares(values: list[float] | torch.Tensor) -> InputStatistics:
    sums = torch.as_tensor(values, dtype=torch.float64)
    return InputStatistics(5, {Need.SQUARE_SUMS: sums})


def test_wanda_by_hand() -> None:
    # Norms 1, 2, 3, 4: scores of row 0 are 4, 6, 6, 4; the ties drop the lower column.
    weight = torch.tensor([[4.0, -3.0, 2.0, -1.0], [-1.0, 1.0, 1.0, -1.0]])
    statistics = squares([1.0, 4.0, 9.0, 16.0])
    pruned = get_method("wanda").prune(weight, statistics, Pattern.parse("50%"))
    assert pruned.weight is None
    assert pruned.mask.tolist() == [[False, True, True, False], [False, False, True, True]]
    pruned = get_method("wanda").prune(weight, statistics, Pattern.parse("2:4"))
    assert pruned.mask.tolist() == [[False, True, True, False], [False, False, True, True]]
    three = get_method("wanda").prune(weight, statistics, Pattern.parse("25%"))
    assert three.mask.tolist() == [[False, True, True, True], [False, True, True, True]]


def test_wanda_differs_from_magnitude_where_activations_say_so() -> None:
    weight = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    statistics = squares([0.0, 0.0, 100.0, 1e6])
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
    mask = get_method("wanda").prune(weight, squares(sums), parsed).mask
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
    assert set(method_names()) == {"wanda", "ria", "sparsegpt", "dpruner", "maskllm", "magnitude"}


def ria_by_loops(weight: torch.Tensor, sums: torch.Tensor, a: float) -> torch.Tensor:
    """Zhang et al. 2024, eq. 4, entry by entry in float64."""
    values = weight.double().abs()
    scores = torch.zeros_like(values)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            share = values[i, j] / values[:, j].sum() + values[i, j] / values[i].sum()
            scores[i, j] = share * (sums[j] ** 0.5) ** a
    return scores


@pytest.mark.parametrize("pattern", ["50%", "2:4", "8:16"])
@pytest.mark.parametrize("a", [0.0, 0.5, 1.3])
def test_ria_equals_its_formula(pattern: str, a: float) -> None:
    generator = torch.Generator().manual_seed(11)
    weight = torch.randn(9, 32, generator=generator)
    sums = torch.rand(32, generator=generator, dtype=torch.float64) * 100
    parsed = Pattern.parse(pattern)
    expected = ria_by_loops(weight, sums, a)
    mask = get_method("ria", {"a": a}).prune(weight, squares(sums), parsed).mask
    assert torch.equal(mask, choose_by_sorting(expected, parsed))
    if a == 0.5:
        assert torch.equal(mask, get_method("ria").prune(weight, squares(sums), parsed).mask)
    wanda = get_method("wanda").prune(weight, squares(sums), parsed).mask
    assert not torch.equal(mask, wanda)


def test_ria_keeps_no_weight_of_a_channel_of_zeros() -> None:
    weight = torch.ones(4, 8)
    weight[:, 2] = 0
    weight[1] = 0
    mask = get_method("ria").prune(weight, squares([1.0] * 8), Pattern.parse("4:8")).mask
    assert not mask[[0, 2, 3], 2].any()
    assert (mask.sum(1) == 4).all()


def test_parameters_are_checked_and_completed() -> None:
    assert get_method("ria").params == {"a": 0.5}
    assert get_method("ria", {"a": "0.25"}).params == {"a": 0.25}
    assert get_method("wanda").params == {}
    with pytest.raises(UnknownNameError, match=r"'b'.*ria takes a \(power of the activation norm"):
        get_method("ria", {"b": 1})
    with pytest.raises(UnknownNameError, match="wanda takes no parameters"):
        get_method("wanda", {"a": 1})
    for value in ("much", "nan", "-1", "5", ""):
        with pytest.raises(UsageError, match=r"a number from 0\.0 to 4\.0"):
            get_method("ria", {"a": value})
    whole = Parameter("slab", 128, 1, 512, "columns at once")
    assert whole.parse("64") == 64
    with pytest.raises(UsageError, match="a whole number from 1 to 512"):
        whole.parse("64.5")
