"""How long a run will take, and says so while it runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from subllm.measuring.evaluation.problems import Benchmark
from subllm.progress import Unit

from .problems import TYPICAL, Plan
from .quality import together
from .ways import PEER, Served

_SHARE = 0.6
"""Of the read bandwidth that decoding mostly makes use of."""
_TOGETHER = {True: 2.0, False: 5.0}  # times the tokens of one sequence, of the peer and of ours
_PREFILL = {True: 5.0, False: 15.0}  # the same of prompts
_LINE_SECONDS = 10.0  # between two lines where no terminal shows them
_ETA_SHARE = 0.02  # of the work, before which the measured pace says little


def speed_seconds(served: Served, plan: Plan, missing: int, bandwidth: float) -> float:
    """Of `missing` rounds; `bandwidth` in bytes per second."""
    asks = plan.rounds[0]
    return missing * len(asks) * _seconds(served, bandwidth, 1.0)


def quality_seconds(served: Served, data: Benchmark, bandwidth: float) -> float:
    gain = 1.0 if together(served) == 1 else _TOGETHER[served.way.family == PEER]
    return len(data.problems) * _seconds(served, bandwidth, gain)


def _seconds(served: Served, bandwidth: float, gain: float) -> float:
    """Of one completion to its natural end."""
    rate = _SHARE * bandwidth / served.read
    return TYPICAL / (rate * gain) + TYPICAL / (rate * _PREFILL[served.way.family == PEER])


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class Clock:
    """Progress on stderr of work whose parts were estimated beforehand; a `Progress` for what
    the evaluation reports of a part."""

    def __init__(self, estimates: Sequence[float]) -> None:
        """estimates: seconds of every part, in the order in which they come."""
        self._left = list(estimates)
        self._all = sum(estimates)
        self._done = 0.0  # of the estimates
        self._began = time.monotonic()
        self._said = 0.0
        self._title, self._total, self._count = "", 0.0, 0.0
        self._tty = sys.stderr.isatty()

    def part(self, text: str) -> None:
        """The next part is done."""
        self._done += self._left.pop(0) if self._left else 0.0
        self._count = 0.0
        self._say(f"{text}; {self._rest()}", last=True)

    # Progress

    def start(self, key: str, title: str, total: float | None, unit: Unit) -> None:
        self._title, self._total, self._count = title, total or 0.0, 0.0

    def advance(self, key: str, amount: float = 1) -> None:
        self._count += amount
        waited = time.monotonic() - self._said
        if waited >= (0.2 if self._tty else _LINE_SECONDS):
            self._say(f"{self._title}: {self._count:.0f} of {self._total:.0f}; {self._rest()}")

    def revise(self, key: str, title: str, total: float | None) -> None:
        self._title, self._total = title, total or 0.0

    def finish(self, key: str) -> None:
        self._title, self._total = "", 0.0

    def note(self, message: str) -> None:
        self._say(message, last=True)

    def _rest(self) -> str:
        done = self._done
        if self._total and self._left:
            done += self._left[0] * min(1.0, self._count / self._total)
        if done >= self._all or not self._all:
            return "nothing left" if done >= self._all else ""
        pace = (time.monotonic() - self._began) / done if done > _ETA_SHARE * self._all else 1.0
        return f"about {minutes((self._all - done) * pace)} left"

    def _say(self, text: str, last: bool = False) -> None:
        self._said = time.monotonic()
        if self._tty:
            print(f"\r\x1b[K{text}", end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)
