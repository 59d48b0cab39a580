"""Guesses by n-grams: what followed the last time that the text ended as it ends now.

Prompt lookup (Saxena 2023; Yang et al. 2023, arXiv 2304.04487) over the prompt, the completion
so far, the last completions of the session and the client's prediction. A place that matched is
followed for as long as it predicts right. Where an edit leaves it, it is taken up again a few
tokens later; else the longest match of the last tokens is looked up in a hash table.
"""

from __future__ import annotations

from collections.abc import Sequence as Listed
from dataclasses import dataclass

from subllm.engine.sequence import Sequence
from subllm.engine.speculative.acceptance import Acceptance
from subllm.engine.speculative.proposer import GoOn, Guess, Outlook
from subllm.engine.speculative.sessions import Sessions

GRAM = 3
"""Tokens of the shortest match that is looked up."""
PLACES = 16
"""Looked at of one n-gram, the last ones."""
LONGEST = 32
"""Tokens of a match that are counted; a longer one says no more."""
INDEXED = 1 << 16
"""Last tokens of a prompt that are indexed."""
REACH = 32
"""Tokens beyond an edit within which the place is taken up again."""
PATIENCE = 16
"""Tokens of an edit after which it is given up."""

# Kinds of guesses, by the length of the match that they continue.
_EDGES = (GRAM, 4, 6, 9, 14, 22, LONGEST)
_BELIEFS = (0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9)


def kind_of(length: int) -> int:
    """0: less than an n-gram, at the begin of a text or after an edit."""
    return sum(length >= edge for edge in _EDGES)


_KINDS = tuple(kind_of(length) for length in range(LONGEST + 1))


@dataclass
class Match:
    """`text[at]` is what comes next if the last `length` tokens tell."""

    text: list[int]
    at: int
    length: int


class Tracker:
    """Follows one sequence: `match` predicts its next tokens, where there is one. Constant time
    per token, memory in proportion to the sequence."""

    def __init__(self, sequence: Sequence, sessions: Sessions, acceptance: Acceptance) -> None:
        self._acceptance = acceptance
        self._index: dict[tuple[int, ...], list[tuple[list[int], int]]] = {}
        request = sequence.request
        begun = []
        for text, begin in sessions.completions(request.session):
            self._add_text(text)
            begun.append((text, begin))
        if request.prediction:
            begun.append((list(request.prediction), 0))
            self._add_text(begun[-1][0])
        prompt = sequence.request.prompt
        self._own = list(prompt[-INDEXED:])
        self._skipped = len(prompt) - len(self._own)
        self._add_text(self._own)
        self.match = self._found()
        # Where an edit left a text: (text, position, tokens since)
        self._left: tuple[list[int], int, int] | None = None
        if begun:
            text, begin = begun[-1]  # the newest, or what the client expects
            self._left = (text, begin, 0)
            if self.match is None or request.prediction:
                self.match = Match(text, begin, 0)

    def follow(self, sequence: Sequence) -> None:
        """Takes in the tokens that came since."""
        known = self._skipped + len(self._own)
        for token in sequence.tokens[known:].tolist():
            self._take(token)

    def predicted(self, limit: int) -> list[Guess]:
        match = self.match
        if match is None or limit <= 0:
            return []
        text = match.text[match.at : match.at + limit]
        period = len(match.text) - match.at
        if match.text is self._own and text:  # what has just been written goes on repeating
            text = [text[i % period] for i in range(limit)]
        rate = self._acceptance.rate
        kinds = [_KINDS[min(match.length + i, LONGEST)] for i in range(len(text))]
        return [Guess(token, rate(kind), kind) for token, kind in zip(text, kinds, strict=True)]

    def _take(self, token: int) -> None:
        match = self.match
        if match is not None:
            hit = match.text[match.at] == token
            self._acceptance.learn(_KINDS[min(match.length, LONGEST)], hit)
            if hit:
                match.at, match.length = match.at + 1, match.length + 1
            else:
                if match.length >= GRAM or self._left is None:
                    self._left = (match.text, match.at, 0)
                match = None
        self._own.append(token)
        if match is not None and match.at >= len(match.text):
            match = None
        if match is None or match.length < LONGEST:
            match = self._longer(match)
        self.match = match
        self._add(self._own, len(self._own))
        if self._left is not None:
            text, at, since = self._left
            gone = since >= PATIENCE or (match is not None and match.length >= GRAM)
            self._left = None if gone else (text, at, since + 1)

    def _longer(self, match: Match | None) -> Match | None:
        """A match that is longer than the one at hand, or that one."""
        found = self._found()
        if found is not None and (match is None or found.length > match.length):
            return found
        return self._resumed() if match is None else match

    def _found(self) -> Match | None:
        """The longest match of the last tokens, the newest among equals."""
        own = self._own
        best: Match | None = None
        for text, at in reversed(self._index.get(tuple(own[-GRAM:]), ())):
            length = GRAM
            most = min(LONGEST, at, len(own))
            while length < most and text[at - length - 1] == own[-length - 1]:
                length += 1
            if at < len(text) and (best is None or length > best.length):
                best = Match(text, at, length)
        return best

    def _resumed(self) -> Match | None:
        """The place that an edit left, or one near it behind the last token."""
        if self._left is None:
            return None
        text, at, since = self._left
        token, before = self._own[-1], self._own[-2] if len(self._own) > 1 else None
        near = range(at, min(at + REACH, len(text) - 1))
        found = [i for i in near if text[i] == token]
        if not found:  # perhaps one token took the place of another
            swapped = since == 0 and at + 1 < len(text)
            return Match(text, at + 1, 0) if swapped else None
        first = next((i for i in found if i > 0 and text[i - 1] == before), None)
        return Match(text, (found[0] if first is None else first) + 1, 1 if first is None else 2)

    def _add_text(self, text: list[int]) -> None:
        for at in range(GRAM, len(text) + 1):
            self._add(text, at)

    def _add(self, text: list[int], at: int) -> None:
        """Enters the n-gram before position `at`."""
        if at < GRAM:
            return
        places = self._index.setdefault(tuple(text[at - GRAM : at]), [])
        places.append((text, at))
        if len(places) > PLACES:
            del places[0]


class NgramProposer:
    """Implements `Proposer` with a `Tracker` per sequence. Guesses cost nothing, and whether
    they are right is learned from every token, verified or not."""

    name = "ngram"

    def __init__(self) -> None:
        self._sessions = Sessions()
        self._acceptance = Acceptance(_BELIEFS)
        self._trackers: dict[str, Tracker] = {}

    def outlook(self, sequence: Sequence, limit: int) -> Outlook:
        tracker = self._tracker(sequence)
        return Outlook(tuple(guess.chance for guess in tracker.predicted(limit)))

    def propose(self, sequence: Sequence, limit: int, go_on: GoOn) -> list[Guess]:
        return self._tracker(sequence).predicted(limit)

    def learn(self, sequence: Sequence, guesses: Listed[Guess], tokens: Listed[int]) -> None:
        pass  # the tracker sees every token

    def end(self, sequence: Sequence) -> None:
        self._trackers.pop(sequence.request.id, None)
        self._sessions.remember(sequence)

    def close(self) -> None:
        self._trackers.clear()

    def _tracker(self, sequence: Sequence) -> Tracker:
        tracker = self._trackers.get(sequence.request.id)
        if tracker is None:
            tracker = Tracker(sequence, self._sessions, self._acceptance)
            self._trackers[sequence.request.id] = tracker
        tracker.follow(sequence)
        return tracker
