"""How long cells will take: from how fast this machine reads memory, and then from what the
cells that are done took.

A guess before the first cell, within a factor of two or three.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from functools import cached_property

from subllm.measuring.evaluation.measures.measure import Load

# Measured on two cores with int8 weights: a batch decodes so many tokens while the weights are
# read once, and a prompt's tokens come so many at a time.
_BATCH_GAIN = 3.0
_PROMPT_GAIN = 10.0
_OPENING_SECONDS = 2.0


class Clock:
    """Estimates in seconds, corrected by what is learnt."""

    def __init__(self, bytes_per_second: Callable[[], float], cores: int) -> None:
        """bytes_per_second: read by all cores together; measured when first needed."""
        self._measure = bytes_per_second
        self._cores = cores
        self._ratios: dict[str, list[float]] = defaultdict(list)

    @cached_property
    def _bandwidth(self) -> float:
        return self._measure()

    def guess(self, load: Load, bytes_per_token: float) -> float:
        """Without what was learnt. bytes_per_token: of weights, that one token reads."""
        passes = load.prompt_tokens / _PROMPT_GAIN + load.new_tokens / _BATCH_GAIN
        reading = passes * bytes_per_token / self._bandwidth
        return _OPENING_SECONDS + reading + load.core_seconds / self._cores

    def learn(self, kind: str, guessed: float, took: float) -> None:
        """That a cell took so long. kind: cells that are alike, e.g. of one language."""
        self._ratios[kind].append(took / guessed)

    def seconds(self, kind: str, load: Load, bytes_per_token: float) -> float:
        """The guess, times what cells of the same kind took longer; else all cells."""
        ratios = self._ratios.get(kind) or [r for rs in self._ratios.values() for r in rs]
        factor = statistics.median(ratios) if ratios else 1.0
        return factor * self.guess(load, bytes_per_token)
