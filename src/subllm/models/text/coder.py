"""Text to token ids and back: what a vocabulary does, whatever holds it."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property
from itertools import islice, takewhile
from typing import Protocol

import numpy as np
import numpy.typing as npt
import tokenizers

from subllm.errors import WeightsError
from subllm.models.text.tokenizer_files import without_prefix

# The library's own threads are of no use for one text, and it warns whoever forks after them.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class Coder(Protocol):
    """Thread-safe."""

    def encode(self, text: str) -> list[int]:
        """Special tokens written in the text are recognised; none is added."""
        ...

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        """Ids that have no token add nothing; bytes that are not UTF-8 become U+FFFD."""
        ...

    def text_of(self, token_id: int) -> str | None:
        """How the vocabulary spells a token."""
        ...

    def id_of(self, token: str) -> int | None: ...

    def starting(self, spelling: str) -> npt.NDArray[np.uint32]:
        """Ids of the tokens that the vocabulary spells so at their beginning."""
        ...

    @property
    def added_ids(self) -> frozenset[int]:
        """Tokens that are matched in a text before the vocabulary is asked."""
        ...

    @property
    def continuing(self) -> Coder:
        """For text that goes on after other text: without the space that SentencePiece puts
        before a text."""
        ...


class LibraryCoder:
    """The `tokenizers` library's. Reading a vocabulary of 150,000 tokens takes it 0.25 s,
    in which no other thread runs, and 65 MB."""

    def __init__(self, definition: str) -> None:
        """`definition` is the text of a `tokenizer.json`. Raises WeightsError."""
        self.definition = definition
        self.tokenizer = read_definition(definition)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = encode(self.tokenizer, text).ids
        return ids

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=skip_special)

    def text_of(self, token_id: int) -> str | None:
        return self.tokenizer.id_to_token(token_id)

    def id_of(self, token: str) -> int | None:
        return self.tokenizer.token_to_id(token)

    def starting(self, spelling: str) -> npt.NDArray[np.uint32]:
        spelt = self._sorted
        low = bisect_left(spelt, (spelling, -1))
        found = takewhile(lambda entry: entry[0].startswith(spelling), islice(spelt, low, None))
        return np.array([number for _, number in found], np.uint32)

    @cached_property
    def _sorted(self) -> list[tuple[str, int]]:
        return sorted(self.tokenizer.get_vocab(with_added_tokens=False).items())

    @cached_property
    def added_ids(self) -> frozenset[int]:
        return frozenset(self.tokenizer.get_added_tokens_decoder())

    @cached_property
    def continuing(self) -> LibraryCoder:
        definition = without_prefix(self.definition)
        return LibraryCoder(definition) if definition else self


def encode(tokenizer: tokenizers.Tokenizer, text: str) -> tokenizers.Encoding:
    """Without adding special tokens. As a batch of one, for which the library lets other threads
    run: a long text takes it a tenth of a second."""
    return tokenizer.encode_batch([text], add_special_tokens=False)[0]


def read_definition(definition: str) -> tokenizers.Tokenizer:
    """Raises WeightsError when it is malformed."""
    try:
        return tokenizers.Tokenizer.from_str(definition)
    except Exception as error:  # the library raises bare Exception
        raise WeightsError(f"the tokenizer is malformed ({error}); fetch it again") from error
