"""How fast a model reads prompts, so that a step can be given time instead of tokens."""

from __future__ import annotations

LEAST = 4
"""Tokens that a step may read however slow the model is: fewer cost nearly as much."""

FIRST_GUESS = 20e9
"""Bytes of weights times tokens a second, before anything was measured: of a slow machine, so
that the first piece is too small rather than too large."""


class ReadingSpeed:
    """Seconds that tokens take, learned from the steps that ran.

    Tokens of prompts cost what a step takes beyond one that only decodes. Tokens that are
    scored cost more, since each has logits, and are counted as several of a prompt. A slow step
    counts in full, a fast one by half: what follows is rather too short than too long.
    """

    def __init__(self, weight_bytes: int) -> None:
        self._decoding = 0.0
        self._prompt = self._score = max(1, weight_bytes) / FIRST_GUESS

    def tokens(self, seconds: float, *, decoding: bool) -> int:
        """Tokens of prompts that fit a step of so many seconds, `LEAST` at least; `decoding`:
        beside requests that decode in it."""
        left = seconds - (self._decoding if decoding else 0.0)
        return max(LEAST, int(left / self._prompt))

    @property
    def score_weight(self) -> float:
        """Tokens of a prompt that take as long as one that is scored."""
        return max(1.0, self._score / self._prompt)

    def decoded(self, seconds: float) -> None:
        """A step that only decoded took so long. A fast one counts in full, a slow one by half:
        the first may have had to read the weights from disk."""
        known = self._decoding
        self._decoding = (known + seconds) / 2 if known and known < seconds else seconds

    def read(self, tokens: int, seconds: float, *, decoding: bool) -> None:
        """A step with so many tokens of prompts took so long."""
        if decoding:  # what takes less with more to do shows that it was taken for too much
            self._decoding = min(self._decoding, seconds)
        own = seconds - (self._decoding if decoding else 0.0)
        self._prompt = _learned(self._prompt, own / tokens)

    def scored(self, tokens: int, seconds: float) -> None:
        """Scoring so many tokens took so long."""
        self._score = _learned(self._score, seconds / tokens)


def _learned(known: float, seen: float) -> float:
    seen = max(seen, 1e-9)
    return seen if seen > known else (known + seen) / 2
