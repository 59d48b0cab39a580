"""From completion tokens to the text that a client sees."""

from __future__ import annotations

from collections.abc import Sequence

from subllm.text.stopper import StopMatcher
from subllm.text.stream_decoder import StreamDecoder
from subllm.text.tokenizer import Tokenizer


class CompletionText:
    """Decodes tokens one by one and watches for stop strings.

    Special tokens (chat and fill-in-the-middle markers) are not part of the text, but a
    stop string that occurs in one of them ends the completion.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str], begun: str = "") -> None:
        """begun: what the tokens begin with; the client has it, and no stop is looked for in it"""
        self._tokenizer = tokenizer
        self._known = len(begun)
        self._stops = tuple(stops)
        self._decoder = StreamDecoder(tokenizer)
        self._matcher = StopMatcher(self._stops)

    def push(self, token: int) -> tuple[str, str | None]:
        """(text that is certain now, the stop string that was found)."""
        if token not in self._tokenizer.special_ids:
            return self._matcher.push(self._new(self._decoder.push(token)))
        text, stop = self._matcher.push(self._new(self._decoder.flush()))
        if stop is None and self._stops:
            marker = self._tokenizer.decode([token])
            stop = next((s for s in self._stops if s in marker), None)
            if stop is not None:
                text += self._matcher.flush()
        return text, stop

    def finish(self) -> tuple[str, str | None]:
        """What was held back when no more tokens come."""
        text, stop = self._matcher.push(self._new(self._decoder.flush()))
        return (text, stop) if stop is not None else (text + self._matcher.flush(), None)

    def _new(self, text: str) -> str:
        """What of it the client does not have yet."""
        new, self._known = text[self._known :], max(0, self._known - len(text))
        return new
