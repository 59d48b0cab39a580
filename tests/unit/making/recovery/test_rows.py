from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from subllm.errors import CalibrationError
from subllm.making.recovery.rows import Order, RecoveryText, joined, pack_rows, with_filled

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


def test_holes_are_filled_from_the_marker_to_the_document_s_end() -> None:
    marker = (7, 8)
    tokens = [
        [1, 7, 8, 2, 0, 3, 4, 7],  # a hole, then a document that its row cuts inside a marker
        [8, 5, 7, 8, 6, 9, 0, 7],  # half a marker, then a hole
        [7, 8, 0, 1, 2, 8, 7, 3],  # a marker is all there is
    ]
    starts = [[1, 0, 0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0, 0, 1], [1, 0, 0, 1, 0, 0, 0, 0]]
    wanted = [[0, 0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1, 0], [0, 1, 1, 0, 0, 0, 0, 0]]
    matrix = np.array(tokens, np.int32)
    text = RecoveryText(matrix, np.array(starts, np.bool_), matrix != 0)
    found = with_filled(text, marker)
    assert text.filled is None and found.filled is not None
    assert found.filled.astype(int).tolist() == wanted
    assert found.digest == text.digest
    one = with_filled(text, (8,))
    assert (
        one.filled is not None
        and one.filled[2].tolist() == [False, True, True] + 2 * [False] + [True] * 3
    )
    # A marker that two documents share is none.
    split = replace(text, starts=np.array([[1, 0, 1, 0, 0, 1, 0, 0], *starts[1:]], np.bool_))
    assert not with_filled(split, marker).filled[0].any()  # type: ignore[index]


def test_texts_are_joined_row_by_row() -> None:
    one, other = pack_rows([[1, 2, 3, 4]], 4), pack_rows([[5, 6, 0, 7], [8, 9, 9, 9]], 4, end=0)
    both = joined([one, other])
    assert both.tokens.tolist() == [[1, 2, 3, 4], [5, 6, 0, 7], [8, 9, 9, 9]]
    assert both.starts[1].tolist() == [True, False, False, True]
    assert both.learned[1].tolist() == [True, True, False, True]
    assert joined([one]).digest == one.digest
