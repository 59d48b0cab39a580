"""What to give each group of matrices when all of them together may cost so much.

The groups' losses are taken to add up. Each group is reduced to the lower convex hull of its
levels; then the step that saves most loss for its cost comes first, over all groups. That is
the least loss there is at the costs where a step ends, and between two such costs it misses at
most what one step saves (the multiple-choice knapsack and its linear relaxation: Sinha and
Zoltners 1979).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from subllm.errors import UsageError


@dataclass(frozen=True)
class Goal:
    """What an allocation is to reach: one of the two.

    budget  share of dense int8's bytes that a token may read
    keep    share of the dense base's first choices that is to hold
    """

    budget: float | None = None
    keep: float | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for what is no share between 0 and 1."""
        for option, share in (("budget", self.budget), ("keep", self.keep)):
            if share is not None and not 0 < share < 1:
                raise UsageError(
                    f"{option} {share:g} is not between 0 and 1; 'subllm add' packs a base dense"
                )


@dataclass(frozen=True)
class Level:
    """One thing that a group can be given."""

    cost: float
    loss: float


@dataclass(frozen=True)
class Step:
    """Group `group` goes from one level of its hull to the level `level`."""

    group: int
    level: int
    cost: float  # more
    gain: float  # loss less


def cheapest(groups: Sequence[Sequence[Level]]) -> list[int]:
    """Of every group the index of the level with the least cost, and of those the least loss."""
    return [
        min(range(len(levels)), key=lambda index: (levels[index].cost, levels[index].loss))
        for levels in groups
    ]


def steps(groups: Sequence[Sequence[Level]]) -> list[Step]:
    """From `cheapest` to what loses least, by falling gain for cost."""
    found = [step for index, levels in enumerate(groups) for step in _hull(index, levels)]
    # Stable, so that a group's own steps keep their order where they gain alike.
    return sorted(found, key=lambda step: -step.gain / step.cost)


def within(groups: Sequence[Sequence[Level]], budget: float) -> list[int]:
    """A level for every group whose costs sum up to `budget` at most, with little loss. Raises
    ValueError when even the cheapest cost more."""
    chosen = cheapest(groups)
    left = budget - sum(levels[index].cost for levels, index in zip(groups, chosen, strict=True))
    if left < 0:
        raise ValueError(f"the cheapest levels cost {-left} too much")
    stuck: set[int] = set()
    for step in steps(groups):
        if step.group in stuck:
            continue
        if step.cost > left:
            stuck.add(step.group)
            continue
        chosen[step.group] = step.level
        left -= step.cost
    return chosen


def _hull(group: int, levels: Sequence[Level]) -> Iterator[Step]:
    at = cheapest([levels])[0]
    while True:
        here = levels[at]
        better = [
            Step(group, index, level.cost - here.cost, here.loss - level.loss)
            for index, level in enumerate(levels)
            if level.cost > here.cost and level.loss < here.loss
        ]
        if not better:
            return
        # The steepest; of several on one line the farthest.
        best = max(better, key=lambda step: (step.gain / step.cost, step.cost))
        yield best
        at = best.level
