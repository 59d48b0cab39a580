"""Proposers and paces that make speculation happen as a test wants it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from collections.abc import Sequence as Listed

from subllm.engine.sequence import Sequence
from subllm.engine.speculative.pace import Pace, Round, Verdict
from subllm.engine.speculative.proposer import GoOn, Guess, Outlook


class Eager(Pace):
    """Verifies whatever is proposed, for up to `sequences` at once."""

    def __init__(self, sequences: int = 8) -> None:
        super().__init__()
        self._most = sequences

    def round(self, sequences: int) -> Round | None:
        return Round(sequences, sequences, float(sequences)) if sequences <= self._most else None

    def judge(self, begun: Round, source: str, outlook: Outlook, sequence: Sequence) -> Verdict:
        return Verdict(2.0 if outlook.chances else 0.0)

    def more(self, begun: Round, guesses: Listed[Guess], outlook: Outlook) -> bool:
        return True

    def cut(self, begun: Round, guesses: Listed[Guess]) -> int:
        return len(guesses)

    def speculated(self, begun: Round, emitted: int) -> None:
        pass


class Scripted:
    """Knows the completion of each request, by id, and tells it right with the chance `right`;
    else it guesses any token, special ones and those of the text included."""

    name = "ngram"

    def __init__(
        self, scripts: Mapping[str, Listed[int]], vocab: int, right: float = 1.0, seed: int = 0
    ) -> None:
        self._scripts, self._vocab, self._right = scripts, vocab, right
        self._random = random.Random(seed)
        self.ended: list[str] = []
        self.learnt: list[tuple[list[int], list[int]]] = []

    def outlook(self, sequence: Sequence, limit: int) -> Outlook:
        return Outlook((0.5,) * limit)

    def propose(self, sequence: Sequence, limit: int, go_on: GoOn) -> list[Guess]:
        script = self._scripts.get(sequence.request.id, ())
        known = script[sequence.completion_length :]
        guesses: list[Guess] = []
        for i in range(self._random.randint(0, limit)):
            right = i < len(known) and self._random.random() < self._right
            token = known[i] if right else self._random.randrange(self._vocab)
            guesses.append(Guess(token, 0.5))
        return guesses

    def learn(self, sequence: Sequence, guesses: Listed[Guess], tokens: Listed[int]) -> None:
        self.learnt.append(([guess.token for guess in guesses], list(tokens)))

    def end(self, sequence: Sequence) -> None:
        self.ended.append(sequence.request.id)

    def close(self) -> None:
        pass
