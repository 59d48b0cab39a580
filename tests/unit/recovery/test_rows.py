from __future__ import annotations

import numpy as np
import pytest

from subllm.errors import CalibrationError
from subllm.recovery.rows import Order, pack_rows

END, BOS = 99, 1


def test_rows_are_full_and_know_where_documents_begin() -> None:
    text = pack_rows([[10, 11, END], [20, 21, 22, END], [30, END]], 4, end=END)
    assert text.tokens.tolist() == [[10, 11, END, 20]]
    assert text.starts.tolist() == [[True, False, False, True]]
    assert text.learned.tolist() == [[True, True, False, True]]
    assert text.positions.tolist() == [[0, 1, 2, 0]]
    assert text.next_tokens.tolist() == [[11, END, -1, -1]]


def test_a_long_document_goes_on_in_the_next_row_as_its_own() -> None:
    document = list(range(100, 160))
    text = pack_rows([[5, END], document], 32, end=END)
    assert text.tokens.tolist() == [[5, END, *document[:30]]]
    text = pack_rows([[5, END], document, [7] * 2], 32, end=END)
    assert text.tokens[1].tolist() == [*document[30:], 7, 7]
    assert np.flatnonzero(text.starts[0]).tolist() == [0, 2]
    assert np.flatnonzero(text.starts[1]).tolist() == [0, 30]
    # The row ends in the middle of a document; without an end token, documents still end.
    assert text.next_tokens[0].tolist() == [END, -1, *document[1:30], -1]
    assert text.next_tokens[1].tolist() == [*document[31:], -1, 7, -1]


def test_a_short_rest_is_no_context_worth_a_row() -> None:
    text = pack_rows([list(range(40)), [50] * 32], 32)
    assert text.tokens[1].tolist() == [50] * 32


def test_texts_of_one_document_are_separate_after_each_end() -> None:
    text = pack_rows([[10, END, 11, END, 12, 13]], 6, end=END)
    assert text.starts.tolist() == [[True, False, True, False, True, False]]


def test_every_document_of_a_model_with_a_first_token_has_it() -> None:
    text = pack_rows([[10] * 20 + [END], [BOS, 11, 12]], 12, end=END, bos=BOS)
    assert text.tokens[0].tolist() == [BOS] + [10] * 11
    # The rest (10 tokens) is too short for a context of its own.
    assert text.rows == 1
    text = pack_rows([[10] * 60, [BOS, 11, 12]], 40, end=END, bos=BOS)
    assert text.tokens.tolist() == [[BOS] + [10] * 39]
    text = pack_rows([[10] * 60, [BOS, 11, 12], [4] * 30], 40, end=END, bos=BOS)
    assert text.tokens[1, :25].tolist() == [BOS] + [10] * 21 + [BOS, 11, 12]
    assert np.flatnonzero(text.starts[1]).tolist() == [0, 22, 25]


def test_too_little_text_for_a_row_is_refused() -> None:
    with pytest.raises(CalibrationError, match="3 tokens, one row to learn from needs 4"):
        pack_rows([[1, 2], [3]], 4)


def test_the_digest_tells_tokens_and_documents_apart() -> None:
    one = pack_rows([[1, 2, 3, 4]], 4)
    other = pack_rows([[1, 2], [3, 4]], 4)
    assert one.tokens.tolist() == other.tokens.tolist()
    assert one.digest != other.digest
    assert one.digest == pack_rows([[1, 2, 3, 4]], 4).digest


def test_the_order_is_endless_seeded_and_every_epoch_has_every_row_once() -> None:
    order = Order(5, seed=3)
    places = order.at(0, 15)
    assert [sorted(places[i : i + 5]) for i in (0, 5, 10)] == [list(range(5))] * 3
    assert places[:5] != places[5:10] or places[5:10] != places[10:]
    assert Order(5, seed=3).at(7, 6) == places[7:13]
    assert Order(50, seed=3).at(0, 50) != Order(50, seed=4).at(0, 50)
