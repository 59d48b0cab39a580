"""Bringing the store up to date while nobody asks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Self

from subllm.serving.server.convert import Plan

log = logging.getLogger("subllm.server")

QUIET = 15 * 60.0
"""Seconds without a request, after which nobody is thought to be there."""

EVERY = 24 * 3600.0
"""Seconds from one update to the next."""

_LOOK = 60.0

Update = Callable[[], Callable[[], bool]]
"""Begins to bring the store up to date; what it returns tells whether that still runs."""


class IdleUpdates:
    """Begins an update when no request came for QUIET, at most one in EVERY, and none while the
    last one runs. As a context manager it looks once a minute, on a thread of its own; safe to
    use from several threads."""

    def __init__(self, update: Update, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._update = update
        self._clock = clock
        self._lock = threading.Lock()
        self._asked = clock()
        self._begun: float | None = None
        self._runs: Callable[[], bool] = lambda: False
        self._ended = threading.Event()

    def saw(self, _: Plan) -> None:
        with self._lock:
            self._asked = self._clock()

    def look(self) -> None:
        """Begin an update if it is time."""
        with self._lock:
            now = self._clock()
            recent = self._begun is not None and now - self._begun < EVERY
            if now - self._asked < QUIET or recent or self._runs():
                return
            self._begun = now
            log.info("nobody asks: what is outdated is made again in the background")
            try:
                self._runs = self._update()
            except OSError as error:
                log.warning("the update could not be started: %s", error)

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="subllm-idle-updates", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK):
            self.look()
