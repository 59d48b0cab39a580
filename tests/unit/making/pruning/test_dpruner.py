"""D-Pruner against a case by hand and its formula entry by entry."""

from __future__ import annotations

import pytest
import torch

from subllm.errors import ExtractionError
from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.pruning.choose import choose_by_sorting
from subllm.making.pruning.dpruner import scores
from subllm.making.pruning.method import InputStatistics, Need
from subllm.making.pruning.registry import get_method

WEIGHT = torch.tensor([[2.0, -1.0]], dtype=torch.float64)
DOMAIN = torch.tensor([[[1.0, 4.0]], [[1.0, 2.0]]], dtype=torch.float64)
GENERAL = torch.tensor([[[3.0, -1.0]], [[1.0, 2.0]]], dtype=torch.float64)


def test_by_hand() -> None:
    # Without the regulariser: |1 * 2 - 1/2 * 1 * 4| = 0 and |4 * -1 - 1/2 * 2 * 1| = 5.
    assert scores(WEIGHT, DOMAIN, GENERAL, 0.0).tolist() == [[0.0, 5.0]]
    # General importance: |3 * 2 - 1/2 * 1 * 4| = 4 and |-1 * -1 - 1/2 * 2 * 1| = 0, of mean 2;
    # h is 1 and 2, of mean 1.5. So 1 + c G h is 1 + 4/2 * 1/1.5 = 7/3 and 1, and the first
    # score becomes |7/3 * 2 - 1/2 * 49/9 * 4| = 56/9.
    assert scores(WEIGHT, DOMAIN, GENERAL, 1.0).tolist() == [[pytest.approx(56 / 9), 5.0]]
    statistics = InputStatistics(3, {Need.GRADIENTS: DOMAIN, Need.GENERAL_GRADIENTS: GENERAL})
    half = Pattern.parse("50%")
    alone = get_method("dpruner", {"general": 0}).prune(WEIGHT, statistics, half)
    both = get_method("dpruner").prune(WEIGHT, statistics, half)
    assert alone.mask.tolist() == [[False, True]]
    assert both.mask.tolist() == [[True, False]]
    assert both.weight is None


def by_loops(
    weight: torch.Tensor, domain: torch.Tensor, general: torch.Tensor, strength: float
) -> torch.Tensor:
    found = torch.zeros_like(weight, dtype=torch.float64)
    places = [(i, j) for i in range(weight.shape[0]) for j in range(weight.shape[1])]

    def change(g: float, h: float, w: float) -> float:
        return abs(g * w - h * w * w / 2)

    of = {
        (i, j): change(float(general[0, i, j]), float(general[1, i, j]), float(weight[i, j]))
        for i, j in places
    }
    mean_general = sum(of.values()) / len(places)
    mean_fisher = sum(float(domain[1, i, j]) for i, j in places) / len(places)
    for i, j in places:
        g, h = float(domain[0, i, j]), float(domain[1, i, j])
        grown = 1 + strength * of[i, j] / mean_general * h / mean_fisher
        found[i, j] = change(g * grown, h * grown**2, float(weight[i, j]))
    return found


@pytest.mark.parametrize("pattern", ["50%", "2:4", "8:16"])
@pytest.mark.parametrize("strength", [0.0, 1.0, 30.0])
def test_it_equals_its_formula(pattern: str, strength: float) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(7, 32, generator=generator).double()
    domain, general = torch.randn(2, 2, 7, 32, generator=generator).double()
    domain[1].square_()
    general[1].square_()
    expected = by_loops(weight, domain, general, strength)
    assert torch.allclose(scores(weight, domain, general, strength), expected)
    parsed = Pattern.parse(pattern)
    statistics = InputStatistics(9, {Need.GRADIENTS: domain, Need.GENERAL_GRADIENTS: general})
    mask = get_method("dpruner", {"general": strength}).prune(weight, statistics, parsed).mask
    assert torch.equal(mask, choose_by_sorting(expected, parsed))
    assert (mask.sum(1) == parsed.kept_per_row(32)).all()


def test_how_many_sequences_there_were_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(4, 16, generator=generator).double()
    domain = torch.rand(2, 4, 16, generator=generator).double()
    once, thrice = (scores(weight, k * domain, k * domain, 1.0) for k in (1, 3))
    assert torch.allclose(3 * once, thrice)


def test_no_gradients_at_all_score_zero() -> None:
    none = torch.zeros(2, 2, 8)
    assert not scores(torch.ones(2, 8), none, none, 1.0).any()


def test_without_gradients_it_says_what_is_missing() -> None:
    with pytest.raises(ExtractionError, match="needs gradients of the loss; calibrate"):
        get_method("dpruner").prune(torch.ones(2, 4), InputStatistics(0), Pattern.parse("2:4"))
