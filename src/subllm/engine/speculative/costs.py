"""What a step costs by its number of tokens, measured from the steps that run anyway."""

from __future__ import annotations

from collections import deque
from math import inf
from statistics import median_low

SAMPLES = 9
FRESH = 512
"""Steps after which a time is forgotten: caches fill and contexts grow."""
SLOPE = 0.2
"""Cost of another token, in steps of one, where nothing was measured yet. Good guesses pay at
this slope, so that it will be measured."""


class StepCosts:
    """Seconds of a step by its tokens: medians of the last times, lines between them. Other
    programs on the machine make steps slower, never faster, so a step is believed to cost no
    more than a larger one did."""

    def __init__(self, slope: float = SLOPE) -> None:
        self._slope = slope
        self._times: dict[int, deque[tuple[int, float]]] = {}
        self._steps = 0
        self._known: list[tuple[int, float]] | None = None

    def observe(self, tokens: int, seconds: float) -> None:
        self._steps += 1
        self._times.setdefault(tokens, deque(maxlen=SAMPLES)).append((self._steps, seconds))
        self._known = None

    def age(self, tokens: int) -> int | None:
        """Steps since one of so many tokens was last timed; None: never was."""
        times = self._times.get(tokens)
        return self._steps - times[-1][0] if times else None

    def seconds(self, tokens: int) -> float | None:
        """None where nothing at all was measured."""
        known = self._points()
        if not known:
            return None
        first, cost = known[0]
        one = cost / (1 + self._slope * (first - 1))
        if tokens <= first:
            return one * (1 + self._slope * (tokens - 1))
        at, slope = first, self._slope * one
        for more, higher in known[1:]:
            slope = (higher - cost) / (more - at)
            if tokens <= more:
                return cost + slope * (tokens - at)
            at, cost = more, higher
        if at > first:  # beyond what was measured: as steep as the whole of it, or as its end
            slope = max(slope, (cost - known[0][1]) / (at - first))
        return cost + slope * (tokens - at)

    def _points(self) -> list[tuple[int, float]]:
        """(tokens, seconds), both ascending."""
        if self._known is None:
            points: list[tuple[int, float]] = []
            for tokens in sorted(self._times, reverse=True):
                times = [t for step, t in self._times[tokens] if self._steps - step < FRESH]
                if times:
                    ceiling = points[-1][1] if points else inf
                    points.append((tokens, min(ceiling, median_low(times))))
            self._known = points[::-1]
        return self._known
