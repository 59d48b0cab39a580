"""What each client used last: bounded in number and in time."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock


@dataclass(frozen=True)
class LastUse:
    """`language` is None when the last request's language was not known."""

    language: str | None
    model: str


def session_key(api_key: str, user_agent: str, peer: str) -> str:
    """Names a client without keeping its key: a digest of key, User-Agent and address."""
    return hashlib.sha256("\0".join((api_key, user_agent, peer)).encode()).hexdigest()


class Sessions:
    """Least recently used entries go first; entries end after `seconds` without use.
    Safe to use from several threads."""

    def __init__(
        self, clock: Callable[[], float], *, seconds: float = 1800.0, limit: int = 1024
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._limit = limit
        self._entries: OrderedDict[str, tuple[float, LastUse]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str) -> LastUse | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if self._clock() - entry[0] > self._seconds:
                del self._entries[key]
                return None
            return entry[1]

    def put(self, key: str, language: str | None, model: str) -> None:
        """Remember a use; a request without a language keeps the one known before."""
        previous = self.get(key)
        if language is None and previous is not None:
            language = previous.language
        with self._lock:
            self._entries[key] = (self._clock(), LastUse(language, model))
            self._entries.move_to_end(key)
            while len(self._entries) > self._limit:
                self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)
