"""From completion tokens to the text that a client sees."""

from __future__ import annotations

from collections.abc import Sequence

from subllm.models.text.hole_end import Hole, HoleEnd
from subllm.models.text.stopper import StopMatcher
from subllm.models.text.stream_decoder import StreamDecoder
from subllm.models.text.tokenizer import Tokenizer


class CompletionText:
    """Decodes tokens one by one and watches for stop strings, and for the end of a hole.

    Special tokens (chat and fill-in-the-middle markers) are not part of the text, but a
    stop string that occurs in one of them ends the completion.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stops: Sequence[str],
        begun: str = "",
        hole: Hole | None = None,
    ) -> None:
        """begun: what the tokens begin with; the client has it, and no stop is looked for in it.
        hole: what the text fills; it ends where it says again what is behind that"""
        self._tokenizer = tokenizer
        self._known = len(begun)
        self._stops = tuple(stops)
        self._decoder = StreamDecoder(tokenizer)
        self._matcher = StopMatcher(self._stops)
        self._end = None if hole is None else HoleEnd(hole)

    def push(self, token: int) -> tuple[str, str | None]:
        """(text that is certain now, the stop string that was found; "" where the hole ends)."""
        text, stop = self._push(token)
        if self._end is None:
            return text, stop
        return self._finished(text, stop) if stop is not None else self._within(text)

    def finish(self) -> tuple[str, str | None]:
        """What was held back when no more tokens come."""
        text, stop = self._matcher.push(self._new(self._decoder.flush()))
        if stop is None:
            text += self._matcher.flush()
        return self._finished(text, stop)

    def _push(self, token: int) -> tuple[str, str | None]:
        if token not in self._tokenizer.special_ids:
            return self._matcher.push(self._new(self._decoder.push(token)))
        text, stop = self._matcher.push(self._new(self._decoder.flush()))
        if stop is None and self._stops:
            marker = self._tokenizer.decode([token])
            stop = next((s for s in self._stops if s in marker), None)
            if stop is not None:
                text += self._matcher.flush()
        return text, stop

    def _within(self, text: str) -> tuple[str, str | None]:
        assert self._end is not None
        shown, over = self._end.push(text)
        return shown, "" if over else None

    def _finished(self, text: str, stop: str | None) -> tuple[str, str | None]:
        """The last of it that is shown; the hole may have ended before a stop."""
        if self._end is None:
            return text, stop
        shown, over = self._within(text)
        if over is None:
            rest, ended = self._end.finish()
            shown, over = shown + rest, "" if ended else None
        return shown, stop if over is None else over

    def _new(self, text: str) -> str:
        """What of it the client does not have yet."""
        new, self._known = text[self._known :], max(0, self._known - len(text))
        return new
