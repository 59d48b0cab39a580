"""Spending a budget, against all ways to spend it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from subllm.errors import UsageError
from subllm.making.pruning.budget import Goal, Level, cheapest, steps, within


def by_hand() -> list[list[Level]]:
    # Gains for cost: 4 and 1 in the first group, 2 in the second; its middle lies above the hull.
    return [
        [Level(1, 9), Level(2, 5), Level(4, 3)],
        [Level(1, 6), Level(2, 5.5), Level(3, 2)],
    ]


def test_by_hand() -> None:
    groups = by_hand()
    assert cheapest(groups) == [0, 0]
    assert [(step.group, step.level) for step in steps(groups)] == [(0, 1), (1, 2), (0, 2)]
    spent = {budget: within(groups, budget) for budget in (2, 3, 4, 5, 6, 7, 99)}
    assert spent == {
        2: [0, 0], 3: [1, 0], 4: [1, 0], 5: [1, 2], 6: [1, 2], 7: [2, 2], 99: [2, 2],
    }  # fmt: skip


def test_what_is_left_goes_to_a_smaller_step() -> None:
    groups = [[Level(1, 9), Level(9, 1)], [Level(1, 3), Level(2, 2.5)]]
    assert within(groups, 5) == [0, 1]


def test_more_density_that_loses_more_is_not_bought() -> None:
    groups = [[Level(1, 2), Level(2, 2.5), Level(3, 2)]]
    assert within(groups, 10) == [0]


def test_the_cheapest_may_be_too_dear() -> None:
    with pytest.raises(ValueError, match=r"0\.5 too much"):
        within(by_hand(), 1.5)


@pytest.mark.parametrize("seed", range(8))
def test_as_good_as_the_best_but_for_a_step(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = []
    for _ in range(5):
        costs = np.cumsum(rng.uniform(0.5, 3, 4))
        losses = np.sort(rng.exponential(1, 4))[::-1]
        groups.append([Level(*pair) for pair in zip(costs.tolist(), losses.tolist(), strict=True)])
    every = list(product(range(4), repeat=5))

    def total(chosen: tuple[int, ...] | list[int], what: str) -> float:
        return sum(getattr(levels[i], what) for levels, i in zip(groups, chosen, strict=True))

    largest = max(step.gain for step in steps(groups))
    for budget in np.linspace(total(cheapest(groups), "cost"), 40, 9):
        chosen = within(groups, budget)
        assert total(chosen, "cost") <= budget + 1e-9
        best = min(total(c, "loss") for c in every if total(c, "cost") <= budget + 1e-9)
        assert best - 1e-9 <= total(chosen, "loss") <= best + largest
    spent = cheapest(groups)
    for step in steps(groups):  # where a step ends nothing is better
        spent[step.group] = step.level
        best = min(
            total(c, "loss") for c in every if total(c, "cost") <= total(spent, "cost") + 1e-9
        )
        assert total(spent, "loss") == pytest.approx(best)


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.1, float("nan")])
def test_a_goal_is_a_share(share: float) -> None:
    with pytest.raises(UsageError, match=r"budget .* not between 0 and 1"):
        Goal(budget=share)
    with pytest.raises(UsageError, match=r"keep .* not between 0 and 1"):
        Goal(keep=share)
