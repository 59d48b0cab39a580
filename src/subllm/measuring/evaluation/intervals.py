"""Figures with bootstrap intervals: pass@k by the unbiased estimator of Chen et al. (2021), means.

An interval answers "what if other problems of this kind had been asked": problems are
drawn again with replacement. Samples of one problem stay together, because they pass or
fail together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from subllm.errors import UsageError

RESAMPLES = 10_000
CONFIDENCE = 0.95
QUANTILES = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)


@dataclass(frozen=True)
class PassShare:
    """Share of problems that k samples solve, with its confidence interval."""

    k: int
    value: float
    low: float
    high: float


def estimator(n: int, c: int, k: int) -> float:
    """Chance that of k out of n samples, of which c pass, at least one passes.

    1 - C(n-c, k) / C(n, k), as a product that cannot overflow. Raises UsageError for k
    greater than n: it cannot be known from fewer samples.
    """
    if not 1 <= k <= n:
        raise UsageError(f"pass@{k} needs at least {k} samples per problem, there are {n}")
    if not 0 <= c <= n:
        raise ValueError(f"{c} of {n} samples cannot pass")
    if n - c < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


def pass_at_k(counts: Sequence[tuple[int, int]], k: int, seed: int) -> PassShare:
    """Over problems given as (samples, samples that pass); the same seed gives the same
    interval. Raises UsageError for no problems, or fewer samples than k of one."""
    if not counts:
        raise UsageError("there are no problems to count; ask for at least one")
    values = np.array([estimator(n, c, k) for n, c in counts])
    random = np.random.default_rng(seed)
    again = random.integers(0, len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[again].mean(axis=1), QUANTILES)
    return PassShare(k, float(values.mean()), float(low), float(high))


def mean_interval(scores: Sequence[float], seed: int) -> tuple[float, float]:
    """Of the mean over questions."""
    values = np.array(scores)
    random = np.random.default_rng(seed)
    # One row at a time: thousands of questions ten thousand times would not fit memory.
    means = [values[random.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))  # other bits than QUANTILES: as in records
    return float(low), float(high)
