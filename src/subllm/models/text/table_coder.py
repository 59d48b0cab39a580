"""A vocabulary in tables: as good as the library's, and there at once."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from subllm.kernels.native import core
from subllm.models.text.bpe_tables import U32, BpeTables
from subllm.models.text.coder import Coder, encode, read_definition
from subllm.models.text.tokenizer_files import without_prefix

# What tells apart vocabularies that only seem alike: joined words, digits, spaces, scripts.
_SAMPLES = (
    "def quick_sort(values: list[int]) -> None:\n\treturn sorted(values)  # isn't fast\r\n\n",
    "    if (a == b) { x->y += 3.14159; }  // caf\u00e9 na\u00efve e\u0301 \ufb01 \u0130",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3001\u4e2d\u6587 \ud55c\uad6d\uc5b4 "
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "\U0001f680\U0001f468\u200d\U0001f469 \x00\x7f\xa0\u2028\ufeff \u2581 <0x0A> \u0120a",
)


class TableCoder:
    """Implements `Coder`. The library finds a text's words and their symbols, which are
    merged here."""

    def __init__(self, tables: BpeTables) -> None:
        """Raises BackendError where the native module is missing."""
        self.tables = tables
        self._merge = core().merge_words
        self._pipeline = read_definition(tables.pipeline)
        added = self._pipeline.get_added_tokens_decoder()
        self._added = {number: token.content for number, token in added.items()}
        self._special = frozenset(token.content for token in added.values() if token.special)

    def encode(self, text: str) -> list[int]:
        found = encode(self._pipeline, text)
        symbols = np.array(found.ids, np.uint32)
        words = np.array(found.word_ids, np.uint32)
        tables = self.tables
        count = self._merge(tables.pairs, tables.ranks, tables.results, words, symbols)
        ids: list[int] = symbols[:count].tolist()
        return ids

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        texts = [text for text in map(self.text_of, ids) if text is not None]
        if skip_special:
            texts = [text for text in texts if text not in self._special]
        decoder = self._pipeline.decoder
        return " ".join(texts) if decoder is None else decoder.decode(texts)

    def text_of(self, token_id: int) -> str | None:
        if token_id in self._added:
            return self._added[token_id]
        return self._spelling(token_id).decode() or None

    def id_of(self, token: str) -> int | None:
        known = self._pipeline.token_to_id(token)
        if known is not None or not token:
            return known
        sought, order = token.encode("utf-8", "surrogatepass"), self.tables.order
        low = bisect_left(order, sought, key=self._spelling)
        found = low < len(order) and self._spelling(order[low]) == sought
        return int(order[low]) if found else None

    def starting(self, spelling: str) -> U32:
        sought, order = spelling.encode("utf-8", "surrogatepass"), self.tables.order

        def beginning(token_id: int) -> bytes:
            return self._spelling(token_id)[: len(sought)]

        low = bisect_left(order, sought, key=beginning)
        return order[low : bisect_right(order, sought, low, key=beginning)]

    @cached_property
    def added_ids(self) -> frozenset[int]:
        return frozenset(self._added)

    @cached_property
    def continuing(self) -> TableCoder:
        pipeline = without_prefix(self.tables.pipeline)
        return TableCoder(replace(self.tables, pipeline=pipeline)) if pipeline else self

    def _spelling(self, token_id: int) -> bytes:
        ends = self.tables.ends
        if not 0 <= token_id < len(ends) - 1:
            return b""
        return self.tables.text[ends[token_id] : ends[token_id + 1]].tobytes()


def agree(ours: Coder, library: Coder, added: Iterable[str] = ()) -> bool:
    """Whether both say the same of texts that try a vocabulary."""
    texts = [*_SAMPLES, *added, "".join(f"a{token} b" for token in added)]
    if ours.added_ids != library.added_ids:
        return False
    for text in texts:
        ids = library.encode(text)
        if ours.encode(text) != ids or ours.continuing.encode(text) != library.continuing.encode(
            text
        ):
            return False
        if any(ours.decode(ids, skip) != library.decode(ids, skip) for skip in (False, True)):
            return False
    return True
