"""Stop strings in a stream of text: nothing of them is ever emitted."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Watches one sequence for its stop strings.

    The stop string that is complete first wins, whatever pieces the text comes in; of
    several that end at the same character, the longest. Text that may be the start of a
    stop string is held back.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(dict.fromkeys(stop for stop in stops if stop))
        self._held = ""
        self._done = False

    def push(self, text: str) -> tuple[str, str | None]:
        """(text that may be shown, the stop string that was met or None).

        After a match nothing more is emitted.
        """
        if self._done:
            return "", None
        pending = self._held + text
        hits = [
            (start + len(stop), start) for stop in self._stops if (start := pending.find(stop)) >= 0
        ]
        if hits:
            end, start = min(hits)
            self._held, self._done = "", True
            return pending[:start], pending[start:end]
        keep = self._undecided(pending)
        self._held = pending[len(pending) - keep :]
        return pending[: len(pending) - keep], None

    def flush(self) -> str:
        """The held text, at the end of generation."""
        rest, self._held = self._held, ""
        return rest

    def _undecided(self, text: str) -> int:
        """Length of the longest end of `text` that a stop string begins with."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for size in range(min(longest, len(text)), 0, -1):
            ending = text[-size:]
            if any(stop.startswith(ending) for stop in self._stops):
                return size
        return 0
