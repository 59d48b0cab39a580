"""Languages that are asked for again and again while no sub-model has them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from subllm.serving.server.convert import Plan

log = logging.getLogger("subllm.server")

OFTEN = 20
"""Requests in a language ..."""

WITHIN = 24 * 3600.0
"""... within so many seconds make it wanted."""

Extract = Callable[[str, str], Callable[[], bool]]
"""Begins to extract a language from a base; what it returns tells whether that still runs."""


class WantedLanguages:
    """Has what is wanted extracted, one at a time, each language of a base once. Only languages
    that come with calibration text count, of requests that leave the choice of the model to
    the server. Safe to use from several threads."""

    def __init__(
        self,
        extract: Extract,
        languages: Callable[[], tuple[str, ...]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`languages` are those that can be extracted."""
        self._extract = extract
        self._languages = languages
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: dict[tuple[str, str], deque[float]] = {}
        self._begun: set[tuple[str, str]] = set()
        self._runs: Callable[[], bool] = lambda: False

    def saw(self, plan: Plan) -> None:
        language = plan.route.language
        if plan.route.reason != "fallback" or language is None:
            return
        wanted = language, plan.model.manifest.base.name
        with self._lock:
            if wanted in self._begun or language not in self._languages():
                return
            now = self._clock()
            times = self._asked.setdefault(wanted, deque(maxlen=OFTEN))
            times.append(now)
            if len(times) < OFTEN or now - times[0] > WITHIN or self._runs():
                return
            self._begun.add(wanted)
            del self._asked[wanted]
            log.info("%s of %s is asked for often: it is extracted in the background", *wanted)
            try:
                self._runs = self._extract(*wanted)
            except OSError as error:
                log.warning("the extraction of %s could not be started: %s", language, error)
