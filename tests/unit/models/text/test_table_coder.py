"""Vocabularies in tables say what the library says, or are refused."""

from __future__ import annotations

import json
import lzma
import random
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subllm.kernels.native import core
from subllm.models.text.bpe_tables import BpeTables, tables_of
from subllm.models.text.coder import LibraryCoder
from subllm.models.text.compact_file import from_compact, to_compact
from subllm.models.text.table_coder import TableCoder, agree
from subllm.models.text.tokenizer import Tokenizer
from unit.models.text.tokenizer_samples import PRE, TEXTS, byte_level, pieces

BLOCKS = [
    (0, 0x80), (0x80, 0x250), (0x300, 0x370), (0x400, 0x530), (0x590, 0x700), (0x900, 0xE00),
    (0x2000, 0x2100), (0x2580, 0x2600), (0x3000, 0x3100), (0x4E00, 0xA000), (0xAC00, 0xD7A4),
    (0xE000, 0xE100), (0xFB00, 0x10000), (0x1F300, 0x1FB00), (0x10FF00, 0x110000),
]  # fmt: skip
KINDS: dict[str, Callable[[Path], Tokenizer]] = {
    **{pre: lambda path, pre=pre: byte_level(path, pre)[1] for pre in PRE},  # type: ignore[misc]
    "pieces": lambda path: pieces(path, prefix=False)[2],
    "pieces after a space": lambda path: pieces(path, prefix=True)[2],
}


@pytest.fixture(params=KINDS)
def library(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    return KINDS[request.param](tmp_path / "t.gguf")


def coder_of(tokenizer: Tokenizer) -> LibraryCoder:
    assert isinstance(tokenizer.coder, LibraryCoder)
    return tokenizer.coder


def in_tables(tokenizer: Tokenizer) -> Tokenizer:
    tables = tables_of(coder_of(tokenizer))
    assert tables is not None
    return Tokenizer(TableCoder(tables), tokenizer.facts, lambda: "")


@pytest.mark.parametrize(
    "text", ["a", " a", " re", "    ", "日", "é", "日本".encode()[1:], "((", "\t"]
)
def test_tokens_along_a_text(library: Tokenizer, text: str | bytes) -> None:
    """Against a look at every token."""
    data = text.encode() if isinstance(text, str) else text
    spelt = {number: library.token_bytes(number) for number in range(library.vocab_size)}
    expected = [
        number
        for number, token in spelt.items()
        if token and (token.startswith(data) or data.startswith(token))
        if number not in library.coder.added_ids
    ]
    for tokenizer in (library, in_tables(library)):
        assert np.flatnonzero(tokenizer.along(data)).tolist() == expected


def packed_texts() -> Iterator[str]:
    """What the packs for calibration hold, of every language."""
    for pack in sorted((files("subllm.making.calibration") / "data").iterdir(), key=str):
        if pack.name.endswith(".jsonl.xz"):
            text = lzma.decompress(pack.read_bytes()).decode()
            yield text[:20_000]
            yield from (str(json.loads(line)) for line in text.splitlines()[:5])


def random_texts(tokenizer: Tokenizer) -> Iterator[str]:
    draw = random.Random(7)
    known = ["  ", "\n", "'s", "<|", "def", "\u2581", "<0x41>", *tokenizer.facts.markers]
    for _ in range(500):
        letters = [chr(draw.randrange(*draw.choice(BLOCKS))) for _ in range(draw.randrange(40))]
        yield "".join(part for letter in letters for part in (letter, draw.choice(known)))


def test_the_same_ids_and_texts(library: Tokenizer) -> None:
    ours = in_tables(library)
    texts = [*TEXTS, *packed_texts(), *random_texts(library)]
    assert sum(map(len, texts)) > 100_000
    for text in texts:
        ids = library.encode(text)
        assert ours.encode(text) == ids, text
        assert ours.encode_plain(text) == library.encode_plain(text), text
        for skip in (False, True):
            assert ours.decode(ids, skip) == library.decode(ids, skip)
    assert agree(ours.coder, library.coder, library.facts.markers)


def test_the_same_tokens(library: Tokenizer) -> None:
    ours = in_tables(library)
    every = range(library.vocab_size + 10)
    texts = [library.coder.text_of(i) for i in every]
    assert [ours.coder.text_of(i) for i in every] == texts
    assert [ours.token_bytes(i) for i in every] == [library.token_bytes(i) for i in every]
    for text in [*filter(None, texts), "", "no such token", "\u0120nor this", "\u10ff"]:
        assert ours.id_of(text) == library.id_of(text), text
    assert ours.coder.added_ids == library.coder.added_ids
    draw = random.Random(3)
    for _ in range(200):
        ids = draw.choices(every, k=draw.randrange(12))
        for skip in (False, True):
            assert ours.decode(ids, skip) == library.decode(ids, skip)


def changed(tokenizer: Tokenizer, change: Callable[[dict[str, Any]], object]) -> LibraryCoder:
    definition = json.loads(coder_of(tokenizer).definition)
    change(definition)
    return LibraryCoder(json.dumps(definition))


def add(content: str) -> Callable[[dict[str, Any]], object]:
    def change(definition: dict[str, Any]) -> None:
        number = max(definition["model"]["vocab"].values()) + 10
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        definition["added_tokens"].append({"id": number, "content": content, **plain})

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["model"].update(ignore_merges=True),
        lambda d: d["model"].update(dropout=0.5),
        lambda d: d["model"].update(end_of_word_suffix="</w>"),
        lambda d: d.update(
            truncation={
                "max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"
            }
        ),
        lambda d: d["model"]["vocab"].update(twice=5),
        lambda d: d.update(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}),
        add("\u10ff"),
        add("<0x41>"),
    ],
    ids=["whole words", "dropout", "suffix", "cut", "one id twice", "words", "letter", "byte"],
)  # fmt: skip
def test_what_tables_cannot_say(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    tokenizer = byte_level(tmp_path / "t.gguf", "gpt-2")[1]
    assert tables_of(changed(tokenizer, lambda d: None)) is not None
    assert tables_of(changed(tokenizer, change)) is None


def test_merges_in_either_form_and_twice(tmp_path: Path) -> None:
    """Of a pair that is there twice, the later place counts, as in the library."""
    tokenizer = byte_level(tmp_path / "t.gguf", "gpt-2")[1]
    for form in (str, lambda merge: merge.split(" ")):

        def repeat(definition: dict[str, Any], form: Any = form) -> None:
            merges = definition["model"]["merges"]
            merges = [" ".join(m) if isinstance(m, list) else m for m in merges]
            definition["model"]["merges"] = [form(m) for m in [*merges, *merges[:40]]]

        library = changed(tokenizer, repeat)
        tables = tables_of(library)
        assert tables is not None
        for text in (*TEXTS, *packed_texts()):
            assert TableCoder(tables).encode(text) == library.encode(text)


def test_other_tables_do_not_agree(tmp_path: Path) -> None:
    library = coder_of(byte_level(tmp_path / "t.gguf", "gpt-2")[1])
    tables = tables_of(library)
    assert tables is not None
    assert agree(TableCoder(tables), library)
    upside_down = np.ascontiguousarray(tables.ranks.max() - tables.ranks)
    assert not agree(TableCoder(BpeTables(**{**vars(tables), "ranks": upside_down})), library)


def greedy(symbols: list[int], merges: dict[tuple[int, int], tuple[int, int]]) -> list[int]:
    """Byte pair encoding as it is defined: the lowest rank first, the leftmost of those."""
    symbols = list(symbols)
    while True:
        known = [
            (merges[pair][0], at)
            for at in range(len(symbols) - 1)
            if (pair := (symbols[at], symbols[at + 1])) in merges
        ]
        if not known:
            return symbols
        at = min(known)[1]
        symbols[at : at + 2] = [merges[symbols[at], symbols[at + 1]][1]]


@given(
    st.dictionaries(st.tuples(st.integers(0, 9), st.integers(0, 9)), st.none(), max_size=30),
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=40), max_size=4),
    st.randoms(),
)
def test_merging(
    pairs: dict[tuple[int, int], None], words: list[list[int]], draw: random.Random
) -> None:
    """Any table, where each pair becomes a token of its own."""
    ranks = list(range(len(pairs)))
    draw.shuffle(ranks)
    merges = {pair: (rank, 4 + i) for i, (pair, rank) in enumerate(zip(pairs, ranks, strict=True))}
    table = sorted((left << 32 | right, *merges[left, right]) for left, right in merges)
    keys, order, results = zip(*table, strict=True) if table else ((), (), ())
    symbols = np.array([symbol for word in words for symbol in word], np.uint32)
    numbers = np.array([i for i, word in enumerate(words) for _ in word], np.uint32)
    count = core().merge_words(
        np.array(keys, np.uint64), np.array(order, np.uint32), np.array(results, np.uint32),
        numbers, symbols,
    )  # fmt: skip
    expected = [token for word in words for token in greedy(word, merges)]
    assert symbols[:count].tolist() == expected


def test_arrays_that_do_not_fit_are_refused() -> None:
    u32, u64 = np.zeros(2, np.uint32), np.zeros(2, np.uint64)
    for wrong in range(1, 4):
        arrays = [u64, u32, u32, u32, u32.copy()]
        arrays[wrong] = np.zeros(3, np.uint32)
        with pytest.raises(ValueError, match="belong"):
            core().merge_words(*arrays)


def test_a_long_word_takes_no_square_of_time(tmp_path: Path) -> None:
    """A text that is not cut into words is one word, here of 190,000 symbols."""
    ours = in_tables(KINDS["pieces"](tmp_path / "t.gguf"))
    text = "the quick brown fox isn't lazy; " * 6_000
    assert ours.encode(text, bos=False)[-30:] == ours.encode(text[-3_200:], bos=False)[-30:]


def test_a_compact_file_holds_it_all(library: Tokenizer) -> None:
    tables = tables_of(coder_of(library))
    assert tables is not None
    facts, again = from_compact(to_compact("sha256-1", library.facts, tables), "sha256-1")
    assert facts == library.facts and again is not None
    assert again.pipeline == tables.pipeline
    for name in ("pairs", "ranks", "results", "text", "ends", "order"):
        stored, made = getattr(again, name), getattr(tables, name)
        assert stored.dtype == made.dtype and np.array_equal(stored, made)
    for text in TEXTS:
        assert TableCoder(again).encode(text) == library.coder.encode(text)


def test_no_tables_are_remembered(library: Tokenizer) -> None:
    data = to_compact("sha256-1", library.facts, None)
    assert from_compact(data, "sha256-1") == (library.facts, None)


def test_a_damaged_or_foreign_compact_file_is_void(tmp_path: Path) -> None:
    library = byte_level(tmp_path / "t.gguf", "gpt-2")[1]
    data = to_compact("sha256-1", library.facts, tables_of(coder_of(library)))
    with pytest.raises(ValueError, match="source"):
        from_compact(data, "sha256-2")
    draw = random.Random(5)
    for place in [0, 31, 32, 39, 40, len(data) - 1, *draw.choices(range(len(data)), k=50)]:
        flipped = bytearray(data)
        flipped[place] ^= 1 << draw.randrange(8)
        with pytest.raises(ValueError):
            from_compact(flipped, "sha256-1")
    for size in [0, 1, 32, 40, 100, len(data) - 8]:
        with pytest.raises(ValueError):
            from_compact(data[:size], "sha256-1")
