"""The last completions of each session, for later ones to be drafted from.

Editors ask again and again at nearly the same place, and a user types what was shown: what was
answered before is the best guess at what will be answered now.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from subllm.engine.sequence import Sequence

SESSIONS = 32
COMPLETIONS = 8
"""Kept of each session, the last ones."""
LENGTH = 1024
"""Tokens kept of a completion, its first ones."""
CONTEXT = 16
"""Tokens of its prompt kept before it, to know the place again."""
SHORTEST = 4


class Sessions:
    """At most SESSIONS x COMPLETIONS x (CONTEXT + LENGTH) tokens; the session that was used
    longest ago goes first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, deque[tuple[list[int], int]]] = OrderedDict()

    def completions(self, session: str | None) -> list[tuple[list[int], int]]:
        """(tokens, where the completion begins in them), oldest first."""
        return list(self._kept.get(session, ())) if session is not None else []

    def remember(self, sequence: Sequence) -> None:
        session = sequence.request.session
        if session is None or sequence.completion_length < SHORTEST:
            return
        begin = sequence.prompt_length
        first = max(0, begin - CONTEXT)
        tokens: list[int] = sequence.tokens[first : begin + LENGTH].tolist()
        kept = self._kept.setdefault(session, deque(maxlen=COMPLETIONS))
        self._kept.move_to_end(session)
        if not kept or kept[-1][0] != tokens:
            kept.append((tokens, begin - first))
        if len(self._kept) > SESSIONS:
            self._kept.popitem(last=False)
