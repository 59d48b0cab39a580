"""Text to learn from: documents packed into rows, each of which sees itself only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from subllm.errors import CalibrationError
from subllm.models.tables.seeded import key

# A document's rest in the next row must be this long to be worth a context of its own.
_SHORTEST = 16


@dataclass(frozen=True)
class RecoveryText:
    """Rows of tokens without padding.

    tokens   int32 [rows, length]
    starts   bool [rows, length], True where a document (or the rest of one that the row
             before had no room for) begins; attention does not cross it, positions count
             from it
    learned  bool [rows, length], True where the teacher's next-token distribution is
             learned: everywhere but after a document's end
    filled   bool [rows, length], True where the next token belongs in a hole of the document;
             None where that is not known
    """

    tokens: npt.NDArray[np.int32]
    starts: npt.NDArray[np.bool_]
    learned: npt.NDArray[np.bool_]
    filled: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        assert self.tokens.ndim == 2 and self.tokens.dtype == np.int32
        assert self.tokens.shape == self.starts.shape == self.learned.shape
        assert bool(self.starts[:, 0].all()), "every row begins with a document"

    @property
    def rows(self) -> int:
        return len(self.tokens)

    @property
    def length(self) -> int:
        return int(self.tokens.shape[1])

    @cached_property
    def digest(self) -> str:
        """sha256-<hex> over the little-endian int32 tokens, then both masks."""
        sha = hashlib.sha256(np.ascontiguousarray(self.tokens, "<i4").tobytes())
        for mask in (self.starts, self.learned):
            sha.update(np.packbits(mask, axis=1).tobytes())
        return "sha256-" + sha.hexdigest()

    @cached_property
    def positions(self) -> npt.NDArray[np.int64]:
        """int64 [rows, length]: how far each token is from its document's start."""
        index = np.broadcast_to(np.arange(self.length), self.tokens.shape)
        return index - np.maximum.accumulate(np.where(self.starts, index, 0), axis=1)

    @cached_property
    def next_tokens(self) -> npt.NDArray[np.int64]:
        """int64 [rows, length]: the token that follows in the same document, -1 where none
        does: the next position begins another document, or the row ends."""
        following = np.full(self.tokens.shape, -1, np.int64)
        following[:, :-1] = np.where(self.starts[:, 1:], -1, self.tokens[:, 1:])
        return following


def pack_rows(
    documents: Iterable[Sequence[int]],
    length: int,
    *,
    end: int | None = None,
    bos: int | None = None,
) -> RecoveryText:
    """Rows of `length` tokens of the documents (token ids), in their order.

    A row is filled to its end: what does not fit of a document begins the next row, as a
    document of its own. The last row, where it is not full, is left out.

    end  the token that closes texts (`Renderer.end`): a document splits after it
    bos  begins every document of a model that starts its texts with one

    Raises CalibrationError when there is not one full row.
    """
    tokens: list[int] = []
    starts: list[bool] = []
    pieces = (piece for document in documents for piece in _split(document, end))
    for piece in pieces:
        rest = piece
        while rest:
            if bos is not None and rest[0] != bos:
                rest = [bos, *rest]
            room = length - len(tokens) % length
            tokens += rest[:room]
            starts += [True] + [False] * (min(room, len(rest)) - 1)
            cut = len(rest) > room
            rest = rest[room:]
            if cut and len(rest) < _SHORTEST:
                break
    rows = len(tokens) // length
    if not rows:
        raise CalibrationError(
            f"the text has {len(tokens)} tokens, one row to learn from needs {length}; add text"
        )
    matrix = np.array(tokens[: rows * length], np.int32).reshape(rows, length)
    begins = np.array(starts[: rows * length], np.bool_).reshape(rows, length)
    begins[:, 0] = True
    learned = np.ones(matrix.shape, np.bool_) if end is None else matrix != end
    return RecoveryText(matrix, begins, learned)


def joined(parts: Sequence[RecoveryText]) -> RecoveryText:
    """All rows, one text after the other; what is `filled` is no longer known."""
    return RecoveryText(
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.learned for part in parts]),
    )


def with_filled(text: RecoveryText, marker: Sequence[int]) -> RecoveryText:
    """The text, knowing where holes are filled: from the end of `marker`, the token ids after
    which a model writes what belongs in one, to the document's end. A document's rest in the row
    after has no marker, and counts as text."""
    width = len(marker)
    found = np.ones((text.rows, text.length - width + 1), np.bool_)
    for at, token in enumerate(marker):
        found &= text.tokens[:, at : at + found.shape[1]] == token
    ends = np.zeros(text.tokens.shape, np.bool_)
    ends[:, width - 1 :] = found
    index = np.broadcast_to(np.arange(text.length), ends.shape)
    marked = np.maximum.accumulate(np.where(ends, index, -1), axis=1)
    began = np.maximum.accumulate(np.where(text.starts, index, 0), axis=1)
    return replace(text, filled=marked - width + 1 >= began)


def _split(document: Sequence[int], end: int | None) -> Iterable[list[int]]:
    piece: list[int] = []
    for token in document:
        piece.append(token)
        if token == end:
            yield piece
            piece = []
    if piece:
        yield piece


class Order:
    """The rows of a text in an endless seeded order: all of them, then all again in
    another order. Any place in it can be asked for, so that a resumed run needs none but
    its count."""

    def __init__(self, rows: int, seed: int) -> None:
        self._rows, self._seed = rows, seed
        self._epoch = -1
        self._order: list[int] = []

    def at(self, first: int, count: int) -> list[int]:
        """Row numbers of places first .. first + count - 1."""
        return [self._at(place) for place in range(first, first + count)]

    def _at(self, place: int) -> int:
        epoch, within = divmod(place, self._rows)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = sorted(range(self._rows), key=lambda row: key(self._seed, epoch, row))
        return self._order[within]
