"""What speculation asks of a source of guesses."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Listed
from dataclasses import dataclass
from typing import Protocol

from subllm.engine.sequence import Sequence


@dataclass(frozen=True)
class Outlook:
    """What proposing for a sequence would be worth now.

    chances        of the first, second, ... guess to be accepted, each given those before it
    start_seconds  before the first guess (to catch up with the sequence)
    step_seconds   of each guess
    backlog_seconds  once, before anything can be proposed for this sequence
    """

    chances: tuple[float, ...]
    start_seconds: float = 0.0
    step_seconds: float = 0.0
    backlog_seconds: float = 0.0


@dataclass(frozen=True)
class Guess:
    """A token, and its chance of being accepted given those before it. `kind` is the
    proposer's own, to learn from the outcome."""

    token: int
    chance: float
    kind: int = 0


GoOn = Callable[[list[Guess]], bool]
"""Whether another guess after these is worth its time."""


class Proposer(Protocol):
    """Guesses how sequences go on. Called by the engine's thread, between steps."""

    @property
    def name(self) -> str:
        """Under which its guesses are counted."""

    def outlook(self, sequence: Sequence, limit: int) -> Outlook:
        """Of at most `limit` guesses after the tokens of the sequence; no chances: nothing
        can be proposed now. Called once for every token of a sequence, if only to keep up."""

    def propose(self, sequence: Sequence, limit: int, go_on: GoOn) -> list[Guess]:
        """At most `limit` guesses, fewer as soon as `go_on` says so."""

    def learn(self, sequence: Sequence, guesses: Listed[Guess], tokens: Listed[int]) -> None:
        """These tokens came out where those were guessed; there may be more of either."""

    def end(self, sequence: Sequence) -> None:
        """The sequence is over, or will not be proposed for any more."""

    def close(self) -> None:
        """Frees what it holds; no other call may follow."""
