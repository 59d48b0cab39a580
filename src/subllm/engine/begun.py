"""A completion whose first characters are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from subllm.engine.constraint import AllowedTokens
from subllm.models.text.tokenizer import Tokenizer


class Begun:
    """A `Constraint` to a text that stands at the beginning, in whatever tokens the model would
    have written it; `done` with the token that ends it or goes on beyond. `known` counts those
    that said nothing new.

    A prompt that stops in the middle of a word ends with a token that the model never saw there:
    after "retu" comes "rn" in no text, since "return" is one token. So the word is left to the
    model, which has to begin it as it is begun ("token healing").
    """

    error: str | None = None

    def __init__(self, tokenizer: Tokenizer, ids: Sequence[int]) -> None:
        """ids: of a text that ends with a whole character."""
        self._tokenizer = tokenizer
        self._rest = b"".join(map(tokenizer.token_bytes, ids))
        self.text = self._rest.decode("utf-8", "replace")
        self.known = 0

    @property
    def done(self) -> bool:
        return not self._rest

    def allowed(self) -> AllowedTokens:
        along = self._tokenizer.along(self._rest)
        whole = np.pad(along, (0, -len(along) % 32))
        return np.packbits(whole, bitorder="little").view("<u4")

    def take(self, token: int) -> None:
        written = len(self._tokenizer.token_bytes(token))
        self.known += written <= len(self._rest)
        self._rest = self._rest[written:]
