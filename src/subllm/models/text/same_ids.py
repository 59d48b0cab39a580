"""Whether two models mean the same by their token ids."""

from __future__ import annotations

import numpy as np

from subllm.models.text.table_coder import TableCoder
from subllm.models.text.tokenizer import Tokenizer


def same_ids(one: Tokenizer, other: Tokenizer) -> bool:
    """True when every id that is a token in both is the same one.

    What only one has does not count: models of one family pad their vocabularies to different
    sizes, or add a few special tokens. Vocabularies in tables are compared in milliseconds.
    """
    if one is other:
        return True
    a, b = one.coder, other.coder
    count = min(one.vocab_size, other.vocab_size)
    if isinstance(a, TableCoder) and isinstance(b, TableCoder) and _same_tables(a, b, count):
        tokens = sorted(a.added_ids | b.added_ids)
    else:
        tokens = list(range(count))
    texts = ((a.text_of(token), b.text_of(token)) for token in tokens)
    return count > 0 and all(None in pair or pair[0] == pair[1] for pair in texts)


def _same_tables(one: TableCoder, other: TableCoder, count: int) -> bool:
    """Of the first `count` ids; what is added to a vocabulary need not stand in its tables."""
    a, b = one.tables, other.tables
    count = min(count, len(a.ends) - 1, len(b.ends) - 1)
    return np.array_equal(a.ends[: count + 1], b.ends[: count + 1]) and np.array_equal(
        a.text[: a.ends[count]], b.text[: b.ends[count]]
    )
