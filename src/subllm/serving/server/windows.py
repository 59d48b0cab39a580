"""What editors cut off before the text that they send.

Many send so many lines or characters before the cursor: in a longer file that window begins
somewhere else with each new line, and nothing of the prompt would be known from the one before.
What they sent a moment ago tells what stood before the window, so that the prompt can go on to
begin where it did.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

SESSIONS = 32
TEXTS = 4  # of a session: files that are worked on in turn
LONGEST = 1 << 16  # characters of a text that is remembered
_PROBE = 128  # characters by which the begin of one text is found in another
_TRIES = 8
_MORE = 4  # so many times the text that is put before it, a window has at least
_LESS = 8  # and so many times the text that it loses, where it has gone up


class Windows:
    """Of all sessions, the last ones. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._sessions: OrderedDict[str, list[str]] = OrderedDict()

    def steady(self, session: str | None, before: str) -> str:
        """`before`, the text before a cursor, from where the session's last prompt of the same text
        began: with up to a quarter more than it has, which was sent earlier, or an eighth less. As
        it is where nothing is known of it."""
        if session is None or not _PROBE <= len(before) <= LONGEST:
            return before
        with self._lock:
            texts = self._sessions.setdefault(session, [])
            self._sessions.move_to_end(session)
            if len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)
            found = before
            for number, known in enumerate(texts):
                joined = _joined(known, before)
                if joined is not None:
                    del texts[number]
                    found = joined if len(joined) <= LONGEST else before
                    break
            texts.insert(0, found)
            del texts[TEXTS:]
            return found


def _joined(known: str, before: str) -> str | None:
    """None where they are different texts, or too far from each other."""
    at = _place(known, before)
    if at is not None:
        return known[:at] + before if at * _MORE <= len(before) else before
    at = _place(before, known)
    if at is not None:
        return before[at:] if at * _LESS <= len(before) else before
    return None


def _place(text: str, begins: str) -> int | None:
    """Where `begins` begins in `text`, of which it has the rest, or half of itself."""
    probe, at = begins[:_PROBE], -1
    for _ in range(_TRIES):
        at = text.find(probe, at + 1)
        if at < 0:
            return None
        if 2 * _same(text, at, begins) >= min(len(begins), len(text) - at):
            return at
    return None


def _same(text: str, at: int, other: str) -> int:
    """Characters that `text` from `at` on and `other` have in common, by bisection."""
    low, high = 0, min(len(text) - at, len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if text.startswith(other[low:middle], at + low):
            low = middle
        else:
            high = middle - 1
    return low
