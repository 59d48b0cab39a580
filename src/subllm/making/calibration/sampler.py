"""From documents to the token matrix: seeded, packed without padding, digested."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from subllm.errors import CalibrationError
from subllm.making.calibration.render import Renderer
from subllm.making.calibration.source import TextSource
from subllm.models.tables.seeded import key
from subllm.models.text.tokenizer import Tokenizer

_LONGEST = 4096  # tokens of one document; more would be a sample of little else


@dataclass(frozen=True)
class Amount:
    """How many tokens are wanted of a text, and how many it must have at least."""

    tokens: int
    least: int = 0


@dataclass(frozen=True)
class Taken:
    """Documents as token ids, with a key each that decides the order in the matrix."""

    documents: list[tuple[int, list[int]]]
    tokens: int
    unique_tokens: int


def take(
    source: TextSource,
    renderer: Renderer,
    amount: Amount,
    seed: int,
    *,
    repeat: bool = True,
    part: int = 0,
    short: str = "one sample needs {least}; add text to it or choose shorter sequences (seq_len)",
) -> Taken:
    """Exactly `amount.tokens` tokens of `source`; the last document is cut.

    When the documents run out, they are used again in their next forms; without
    `repeat` there are then fewer tokens. A text that the source has twice counts once.
    `part` is the source's place in a mix: the keys depend on no path, so that moved files
    give the same matrix. Raises CalibrationError, saying `short`, when all documents together
    have fewer than `amount.least`.
    """
    budget, least = amount.tokens, amount.least
    taken: list[tuple[int, list[int]]] = []
    seen: set[int] = set()
    kept = []
    total = 0
    for document in source.documents(seed):
        same = key(document.text, document.instruction, document.turns)
        if same in seen or not (document.text.strip() or document.turns):
            continue
        seen.add(same)
        kept.append(document)
        ids = renderer.encode(document, 0)[: min(_LONGEST, budget - total)]
        taken.append((key(seed, part, document.id, 0), ids))
        total += len(ids)
        if total >= budget:
            break
    if total < min(least, budget):
        raise CalibrationError(f"{source.name} has {total} tokens, {short.format(least=least)}")
    unique = total
    for turn in itertools.count(1) if repeat else ():
        if total >= budget:
            break
        for document in kept:
            ids = renderer.encode(document, turn)[: min(_LONGEST, budget - total)]
            taken.append((key(seed, part, document.id, turn), ids))
            total += len(ids)
    return Taken(taken, total, unique)


def row_content(tokenizer: Tokenizer, seq_len: int) -> int:
    """Tokens of a row that are free: models that start every text with a bos token get
    one at the start of every row, where they would be lost without it."""
    return seq_len - 1 if tokenizer.adds_bos else seq_len


def pack(
    documents: Sequence[tuple[int, list[int]]], tokenizer: Tokenizer, rows: int, seq_len: int
) -> npt.NDArray[np.int32]:
    """The documents in the order of their keys, joined and cut: int32 [rows, seq_len]."""
    width = row_content(tokenizer, seq_len)
    ordered = sorted(documents, key=lambda item: item[0])
    flat = np.fromiter(itertools.chain.from_iterable(ids for _, ids in ordered), np.int32)
    matrix = flat[: rows * width].reshape(rows, width)
    if width == seq_len:
        return matrix
    return np.insert(matrix, 0, np.int32(tokenizer.bos_id or 0), axis=1)


def digest(tokens: npt.NDArray[np.int32]) -> str:
    """sha256-<hex> over the rows as little-endian int32."""
    return "sha256-" + hashlib.sha256(np.ascontiguousarray(tokens, "<i4").tobytes()).hexdigest()
