"""How many guesses are worth their time, if any.

A step over n tokens costs V(n), measured; a guess comes out with a chance that its proposer
knows from the past. The number of guesses that brings the most tokens per second is chosen, and
none where that is hardly more than plain decoding. Chances and costs can be wrong, so there is
also an account of what speculation has gained and lost: losses are limited to a small part of
the time that is spent decoding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Listed
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

from subllm.engine.sequence import Sequence
from subllm.engine.speculative.costs import StepCosts
from subllm.engine.speculative.proposer import Guess, Outlook

MOST_SEQUENCES = 2
"""With more of them a step is wide anyway."""
MOST_GUESSES = 15
LEAST_GAIN = 1.05
"""Expected tokens per second against plain decoding."""
PROBE = 64
"""Tokens after which a source that did not pay is tried again."""
START_CREDIT, MOST_CREDIT = 32.0, 64.0
"""Plain steps that may be lost: at first, and ever."""
SHARE = 0.01
"""Of the time of decoding, may be lost."""
REFRESH = 64
"""Steps after which a plain one is timed again."""
PROBE_GUESSES = 4
LOOK_AHEAD = 4
USUAL_LENGTH = 128
"""Tokens that a completion is expected to have yet before others were seen."""


@dataclass
class Round:
    """A step that is being put together: `tokens` of `sequences` that decode, of which
    `expected` come out, after `spent` seconds of guessing."""

    sequences: int
    tokens: int
    expected: float
    spent: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """On a source of guesses, for one sequence. `gain`: tokens per second with them, against
    those without; 0 where they are not to be had now. `probe`: they will hardly pay, but are
    tried to learn whether they do."""

    gain: float
    probe: bool = False


NOT_NOW = Verdict(0.0)


class Pace:
    """Plans rounds and learns from them. All times in seconds."""

    def __init__(self) -> None:
        self.costs = StepCosts()
        self._credit = START_CREDIT
        self._emitted = 0
        self._tried: dict[str, int] = {}  # by source, `_emitted` when it proposed last
        self._lengths: deque[int] = deque(maxlen=32)  # of completions

    def round(self, sequences: int) -> Round | None:
        """None: decode plainly, as there are too many sequences or a plain step is to be
        timed."""
        if not 0 < sequences <= MOST_SEQUENCES:
            return None
        age = self.costs.age(sequences)
        if age is None or age >= REFRESH:
            return None
        return Round(sequences, sequences, float(sequences))

    def judge(self, begun: Round, source: str, outlook: Outlook, sequence: Sequence) -> Verdict:
        """Whether that source is to propose for the sequence now."""
        before = self._rate(begun, begun.expected, 0)
        gain, count = 0.0, 0
        for number, expected in enumerate(_expected(begun, outlook.chances), start=1):
            spent = outlook.start_seconds + number * outlook.step_seconds
            rate = self._rate(begun, expected, number, spent) / before
            if rate > gain:
                gain, count = rate, number
        if not count:
            return NOT_NOW
        plain = self._seconds(begun.sequences)
        pays = gain >= LEAST_GAIN
        if pays and outlook.backlog_seconds:
            saved = self._remaining(sequence) * plain * (1 - 1 / gain)
            pays = saved > 2 * outlook.backlog_seconds
        risk = self._risk(begun, outlook, count)
        if pays:  # a backlog is paid once, for what is expected of a whole completion
            return Verdict(gain) if risk <= self._credit * plain else NOT_NOW
        if self._emitted - self._tried.get(source, -PROBE) < PROBE:
            return NOT_NOW
        count = min(len(outlook.chances), PROBE_GUESSES)
        risk = self._risk(begun, outlook, count) + outlook.backlog_seconds
        return Verdict(gain, probe=True) if risk <= self._credit * plain else NOT_NOW

    def tried(self, source: str) -> None:
        """That source proposes now."""
        self._tried[source] = self._emitted

    def more(self, begun: Round, guesses: Listed[Guess], outlook: Outlook) -> bool:
        """Whether guesses after these are worth what they cost."""
        chances = [guess.chance for guess in guesses]
        best = self._best(begun, chances)[0]
        ahead = [*chances, *outlook.chances[len(guesses) : len(guesses) + LOOK_AHEAD]]
        rates = (
            self._rate(begun, expected, number, (number - len(chances)) * outlook.step_seconds)
            for number, expected in enumerate(_expected(begun, ahead), start=1)
            if number > len(chances)
        )
        return max(rates, default=0.0) > best

    def cut(self, begun: Round, guesses: Listed[Guess]) -> int:
        """How many of the guesses to verify."""
        return self._best(begun, [guess.chance for guess in guesses])[1]

    def decoded(self, sequences: int, tokens: int, seconds: float, emitted: int) -> None:
        """A step of decoding is over, `tokens` with guesses, of which `emitted` came out."""
        if sequences > MOST_SEQUENCES:  # a token of many is another thing than many of one
            return
        self.costs.observe(tokens, seconds)
        self._emitted += emitted
        self._credit = min(MOST_CREDIT, self._credit + SHARE * emitted / sequences)

    def speculated(self, begun: Round, emitted: int) -> None:
        """So many tokens came out of a round with guesses, or with time spent on them."""
        taken = begun.spent + self._seconds(begun.tokens)
        self._credit += emitted / begun.sequences - taken / self._seconds(begun.sequences)
        self._credit = min(MOST_CREDIT, self._credit)

    def ended(self, sequence: Sequence) -> None:
        """It will have no more tokens."""
        self._lengths.append(sequence.completion_length)

    def _seconds(self, tokens: int) -> float:
        seconds = self.costs.seconds(tokens)
        assert seconds is not None  # there is no round before a step was timed
        return seconds

    def _rate(self, begun: Round, expected: float, guesses: int, spent: float = 0.0) -> float:
        """Tokens per second with so many guesses verified."""
        return expected / (begun.spent + spent + self._seconds(begun.tokens + guesses))

    def _best(self, begun: Round, chances: Listed[float]) -> tuple[float, int]:
        """The highest rate, and for how many of the guesses, which are there already."""
        best = (self._rate(begun, begun.expected, 0), 0)
        for number, expected in enumerate(_expected(begun, chances), start=1):
            rate = self._rate(begun, expected, number)
            if rate > best[0]:
                best = (rate, number)
        return best

    def _risk(self, begun: Round, outlook: Outlook, guesses: int) -> float:
        """Seconds lost if no guess comes out."""
        verified = self._seconds(begun.tokens + guesses) - self._seconds(begun.tokens)
        return outlook.start_seconds + guesses * outlook.step_seconds + verified

    def _remaining(self, sequence: Sequence) -> float:
        """Tokens that the completion is expected to have yet."""
        done = sequence.completion_length
        longer = [length - done for length in self._lengths if length > done]
        expected = (sum(longer) + USUAL_LENGTH) / (len(longer) + 1)
        return min(expected, sequence.room + 1)


def _expected(begun: Round, chances: Listed[float]) -> list[float]:
    """Tokens that come out of the step with one, two, ... guesses of these chances."""
    reached = list(accumulate(chances, mul))
    return [begun.expected + total for total in accumulate(reached)]
