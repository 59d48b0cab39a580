"""Token by token to text, never half a character."""

from __future__ import annotations

import codecs
from typing import Protocol


class TokenBytes(Protocol):
    """The part of a tokenizer that decoding a stream needs."""

    @property
    def special_ids(self) -> frozenset[int]: ...

    def token_bytes(self, token_id: int) -> bytes: ...


class StreamDecoder:
    """Turns one sequence's tokens into text as they come.

    All pieces together are the tokens' bytes as UTF-8, with U+FFFD where the model
    wrote bytes that are not. A character whose bytes are still incomplete is held back.
    """

    def __init__(self, tokenizer: TokenBytes, *, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip = tokenizer.special_ids if skip_special else frozenset()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The text that this token completes, possibly empty."""
        if token_id in self._skip:
            return ""
        return self._decoder.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        """What is left at the end: U+FFFD for an unfinished character. Starts anew."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest
