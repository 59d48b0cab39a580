"""From the scores of single questions to a task's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from subllm.evaluation.meteor import NOTE, WITHOUT_SYNONYMS, Meteor

RESAMPLES = 10_000


def interval(scores: Sequence[float], seed: int) -> tuple[float, float]:
    """95 % confidence interval of the mean, with questions drawn again with replacement."""
    values = np.array(scores)
    random = np.random.default_rng(seed)
    # One row at a time: thousands of questions ten thousand times would not fit memory.
    drawn = [values[random.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def means(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each metric, over the questions; all have the same metrics."""
    return {name: float(np.mean([one[name] for one in metrics])) for name in metrics[0]}


def notes_of(meteor: Meteor | None, truncated: int, context: int) -> tuple[str, ...]:
    """What a reader of the score must know. context: in tokens."""
    found = []
    if meteor is not None and meteor.label == WITHOUT_SYNONYMS:
        found.append(NOTE)
    if truncated:
        found.append(
            f"{truncated} prompts lost their beginning, as they are longer than the context of "
            f"{context} tokens"
        )
    return tuple(found)
