"""Packing by hand: order, cuts, repeats, digests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from subllm.errors import CalibrationError
from subllm.making.calibration.render import Renderer
from subllm.making.calibration.sampler import Amount, digest, pack, take
from subllm.making.calibration.source import PIECE, Document, belongs, pieces
from subllm.models.tables.seeded import key

from .tiny import END, FIM, MARK, PLAIN, bytes_of, tokenizer


@dataclass
class Listed:
    """A source of given documents in their given order."""

    found: list[Document]
    name: str = "path:/x"

    def documents(self, seed: int) -> Iterator[Document]:
        yield from self.found


PLAIN_RENDERER = Renderer(tokenizer(None), PLAIN)


def test_documents_are_joined_and_cut_without_padding() -> None:
    source = Listed([Document("a", "abc"), Document("b", "defg"), Document("c", "hi")])
    taken = take(source, PLAIN_RENDERER, Amount(10, 5), 0)
    assert (taken.tokens, taken.unique_tokens) == (10, 10)
    assert [ids for _, ids in taken.documents] == [
        [*b"abc", END],
        [*b"defg", END],
        [*b"h"],
    ]
    matrix = pack([(i, ids) for i, (_, ids) in enumerate(taken.documents)], tokenizer(), 2, 5)
    assert matrix.dtype == np.int32
    assert matrix.tolist() == [[*b"abc", END, ord("d")], [*b"efg", END, ord("h")]]


def test_keys_decide_the_order() -> None:
    matrix = pack([(9, [1, 2]), (3, [3]), (5, [4, 5])], tokenizer(), 1, 5)
    assert matrix.tolist() == [[3, 4, 5, 1, 2]]


def test_rows_of_a_model_with_bos_begin_with_it() -> None:
    matrix = pack([(0, list(range(1, 9)))], tokenizer(bos=True), 2, 5)
    assert matrix.tolist() == [[MARK, 1, 2, 3, 4], [MARK, 5, 6, 7, 8]]


def test_too_few_tokens_start_again_in_other_forms() -> None:
    code = "def f(x):\n    return x\n"
    source = Listed([Document("a", code, "Do.", "python"), Document("b", "pass", "Go.", "python")])
    renderer = Renderer(tokenizer(), FIM)
    taken = take(source, renderer, Amount(900, 20), 0)
    once = take(source, renderer, Amount(900, 20), 0, repeat=False)
    assert taken.tokens == 900 and once.tokens < 300
    assert taken.unique_tokens == once.tokens == once.unique_tokens
    assert taken.documents[:2] == once.documents
    first, again = taken.documents[0][1], taken.documents[2][1]
    assert again == renderer.encode(source.found[0], 1) != first


def test_a_text_that_is_there_twice_counts_once() -> None:
    source = Listed([Document("a", "same"), Document("b", "same"), Document("c", " \n")])
    assert take(source, PLAIN_RENDERER, Amount(99, 1), 0, repeat=False).unique_tokens == 5


def test_less_than_one_sample_is_refused() -> None:
    with pytest.raises(CalibrationError, match=r"path:/x has 4 tokens, one sample needs 512"):
        take(Listed([Document("a", "abc")]), PLAIN_RENDERER, Amount(5120, 512), 0)
    with pytest.raises(CalibrationError, match="has 0 tokens"):
        take(Listed([]), PLAIN_RENDERER, Amount(5120, 512), 0)


def test_no_document_fills_the_sample() -> None:
    source = Listed([Document("long", "x" * 100_000), Document("short", "y")])
    taken = take(source, PLAIN_RENDERER, Amount(50_000, 1), 0, repeat=False)
    assert [len(ids) for _, ids in taken.documents] == [4096, 2]


def test_digest_is_of_little_endian_rows() -> None:
    tokens = np.array([[1, 2], [258, 4]], dtype=np.int32)
    expected = hashlib.sha256(bytes([1, 0, 0, 0, 2, 0, 0, 0, 2, 1, 0, 0, 4, 0, 0, 0])).hexdigest()
    assert digest(tokens) == f"sha256-{expected}"
    assert digest(tokens.astype(">i4")) == f"sha256-{expected}"


def test_key_is_what_it_was() -> None:
    # Orders, forms and splits of every pack follow from it.
    assert key("form", "a1") == 15353104417058677259
    assert key(0, "x") != key("0x") and key("a", "b") != key("ab")


def test_pieces_are_the_text_cut_at_lines() -> None:
    lines = [f"line {i} = {'x' * (i % 50)}\n" + "\n" * (i % 7 == 0) for i in range(500)]
    document = Document("f", "".join(lines), tag="python")
    parts = list(pieces(document))
    assert "".join(part.text for part in parts) == document.text
    assert all(len(part.text) <= PIECE for part in parts)
    assert all(part.text[:5] in ("line ", "\nline") for part in parts)
    assert [part.id for part in parts] == [f"f#{i}" for i in range(len(parts))]
    assert list(pieces(Document("s", "short"))) == [Document("s", "short")]
    task = Document("t", "x\n" * 9000, "Do it.", "python")
    assert list(pieces(task)) == [task]


def test_an_eighth_is_held_out_and_never_trained_on() -> None:
    documents = [Document(f"d{i}") for i in range(4000)]
    heldout = {d.id for d in documents if belongs(d, "heldout")}
    train = {d.id for d in documents if belongs(d, "train")}
    assert not heldout & train and len(heldout | train) == 4000
    assert 420 < len(heldout) < 580
    assert all(belongs(d, "all") for d in documents)


def test_bytes_of_is_the_tokenizer() -> None:
    assert tokenizer().encode_plain("é\n") == bytes_of("é\n")
