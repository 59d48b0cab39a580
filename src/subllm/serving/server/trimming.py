"""Ends a completion before the model would: by indentation, by time, or at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from subllm.engine.request import TokenEvent


@dataclass(frozen=True)
class Trim:
    """indent   a line after the first that is indented by fewer characters ends the
             completion and is left out
    seconds  from the first token on; a completion that has a line break by then ends
    warm_up  nothing is wanted but the prompt's keys and values, kept for the next request
    """

    indent: int = 0
    seconds: float | None = None
    warm_up: bool = False

    def __bool__(self) -> bool:
        return bool(self.indent or self.seconds is not None or self.warm_up)


UNTRIMMED = Trim()


class Trimmer:
    """The events of one choice as `trim` leaves them: one that has a finish reason is the
    last, whatever the engine goes on to say."""

    def __init__(self, trim: Trim, clock: Callable[[], float] = time.monotonic) -> None:
        self._trim = trim
        self._clock = clock
        self._first: float | None = None
        self._broken = False  # a line has ended
        self._measuring = False  # the indentation of a line, so far in `_held`
        self._held = ""

    def __call__(self, event: TokenEvent) -> TokenEvent:
        if event.error is not None or event.finish_reason == "abort":
            return event
        if self._trim.warm_up:
            return replace(
                event,
                text="",
                tokens=(),
                logprobs=(),
                completion_tokens=0,
                finish_reason="length",
                matched_stop=None,
            )
        now = self._clock()
        self._first = now if self._first is None else self._first
        text, ended = self._indented(event.text)
        late = (
            self._trim.seconds is not None
            and self._broken
            and now - self._first >= self._trim.seconds
        )
        if event.finish_reason is not None and not ended:
            text += self._held
        finish = "length" if ended or (late and not event.finish_reason) else event.finish_reason
        return replace(event, text=text, finish_reason=finish)

    def _indented(self, rest: str) -> tuple[str, bool]:
        """What of a new piece of text is to be passed on, and whether the completion ends."""
        out = ""
        while rest:
            if self._measuring:
                line = rest.lstrip(" \t")
                self._held += rest[: len(rest) - len(line)]
                if not line:
                    break
                if len(self._held) < self._trim.indent:
                    return out, True
                out, rest = out + self._held, line
                self._held, self._measuring = "", False
            line, newline, rest = rest.partition("\n")
            out += line + newline
            if newline:
                self._broken = True
                self._measuring = self._trim.indent > 0
        return out, False
