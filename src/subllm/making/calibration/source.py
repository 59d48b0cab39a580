"""Calibration data: where text comes from, and the token matrix it becomes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from subllm.models.tables.seeded import key

PIECE = 2400  # characters: about one sample of 512 tokens
_HELDOUT_SHARE = 1 / 8

# "all" where the held-out text comes from elsewhere, so that none need be set aside.
Split = Literal["train", "heldout", "all"]


@dataclass(frozen=True)
class CalibrationData:
    """Packed calibration tokens and where they came from.

    tokens         int32 [samples, seq_len]; documents are joined with the model's
                   end-of-text token and cut without padding
    source         "pack:python", "path:/abs", "jsonl:/abs", "hub:py_alpaca", "mix:..."
    digest         sha256-<hex> over the little-endian int32 token matrix
    unique_tokens  how many of the tokens came before any document was used again
    """

    tokens: npt.NDArray[np.int32]
    source: str
    digest: str
    seed: int
    unique_tokens: int


@dataclass(frozen=True)
class Texts:
    """Documents as token ids in the forms that are served, whole, in a seeded order.

    source         as in `CalibrationData`
    unique_tokens  how many there are before any document comes again in another form
    """

    documents: list[list[int]]
    source: str
    unique_tokens: int


@dataclass(frozen=True)
class Document:
    """One text of a source, before it takes one of the forms that are served.

    id           unique in its source; decides order, form and split
    text         code or prose; the answer, where there is an instruction
    instruction  what the text answers, "" for text that stands alone
    tag          tag of the code fence around the text ("python"); None for prose and
                 for text that is to stay as it is
    turns        a conversation as (role, content), instead of all of the above
    hole         where in the text, as (start, end), stands what was written into a hole: the
                 text then takes that form alone, where the model knows it
    """

    id: str
    text: str = ""
    instruction: str = ""
    tag: str | None = None
    turns: tuple[tuple[str, str], ...] = ()
    hole: tuple[int, int] | None = None


class TextSource(Protocol):
    """Documents of one origin."""

    @property
    def name(self) -> str:
        """As in `CalibrationData.source`."""

    def documents(self, seed: int) -> Iterator[Document]:
        """Every document once, in an order that the seed alone decides.

        Raises CalibrationError (empty, malformed), TableError (a file that cannot be read),
        AcquireError (hub sets).
        """


def belongs(document: Document, split: Split) -> bool:
    """Whether a document of a source without splits of its own is in `split`."""
    if split == "all":
        return True
    heldout = key("held-out", document.id) < _HELDOUT_SHARE * 2**64
    return heldout == (split == "heldout")


def pieces(document: Document) -> Iterator[Document]:
    """A long text in parts of about PIECE characters, cut before blank or else any lines,
    so that no single file fills the whole sample."""
    if len(document.text) <= PIECE or document.instruction:
        yield document
        return
    lines = document.text.splitlines(keepends=True)
    part: list[str] = []
    size = count = 0
    for line in lines:
        # From three quarters on, the next blank line is as good a place as any.
        if part and (size + len(line) > PIECE or (size > PIECE * 3 // 4 and not line.strip())):
            yield replace(document, id=f"{document.id}#{count}", text="".join(part))
            part, size, count = [], 0, count + 1
        part.append(line)
        size += len(line)
    yield replace(document, id=f"{document.id}#{count}", text="".join(part))
