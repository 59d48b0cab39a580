"""A completion whose first characters are known."""

from __future__ import annotations

import numpy as np

from subllm.runtime.constraint import AllowedTokens
from subllm.text.tokenizer import Tokenizer


class Begun:
    """A `Constraint` to a text that stands at the beginning, in whatever tokens the model would
    have written it; `done` with the token that ends it or goes on beyond.

    A prompt that stops in the middle of a word ends with a token that the model never saw there:
    after "retu" comes "rn" in no text, since "return" is one token. So the word is left to the
    model, which has to begin it as it is begun ("token healing").
    """

    error: str | None = None

    def __init__(self, tokenizer: Tokenizer, text: str) -> None:
        """text: of which the tokenizer can write every character."""
        self._tokenizer = tokenizer
        self._rest = text.encode()

    @property
    def done(self) -> bool:
        return not self._rest

    def allowed(self) -> AllowedTokens:
        size = -(-self._tokenizer.vocab_size // 32) * 32
        bits = np.zeros(size, np.bool_)
        bits[self._tokenizer.along(self._rest)] = True
        return np.packbits(bits, bitorder="little").view("<u4")

    def take(self, token: int) -> None:
        self._rest = self._rest[len(self._tokenizer.token_bytes(token)) :]
