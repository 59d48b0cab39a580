"""How often guesses come out, by kind."""

from __future__ import annotations

from collections.abc import Sequence

MEMORY = 32
"""Outcomes that an average looks back on; as many again weigh a third of that."""
PRIOR = 4
"""Outcomes that the first belief counts for."""


class Acceptance:
    """An exponential average per kind, from a belief on."""

    def __init__(self, beliefs: Sequence[float]) -> None:
        self._rates = list(beliefs)
        self._seen = [PRIOR] * len(self._rates)

    def __len__(self) -> int:
        return len(self._rates)

    def rate(self, kind: int) -> float:
        return self._rates[kind]

    def learn(self, kind: int, accepted: bool) -> None:
        self._seen[kind] = min(self._seen[kind] + 1, MEMORY)
        self._rates[kind] += (accepted - self._rates[kind]) / self._seen[kind]
