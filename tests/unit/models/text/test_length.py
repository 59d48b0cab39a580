"""Texts that are far too long are found out piece by piece; encoding lets other threads run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.tiny_models import tokenizer

from subllm.models.text.length import PIECE, SHORT, far_longer
from subllm.models.text.tokenizer import Tokenizer
from unit.models.text.tokenizer_samples import byte_level


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """With tokens of several characters."""
    path: Path = tmp_path_factory.mktemp("length") / "t.gguf"
    return byte_level(path, "gpt-2")[1]


@settings(max_examples=30, deadline=None)
@given(
    unit=st.sampled_from(["a", " ", "def f(x):\n", "é€", "\n", "the "]),
    length=st.integers(0, 6 * PIECE),
    limit=st.sampled_from([1, 10, 1000, 8000, 30_000]),
    cut=st.integers(0, 3),
)
def test_nothing_that_fits_is_refused(
    words: Tokenizer, unit: str, length: int, limit: int, cut: int
) -> None:
    text = unit * (length // len(unit))
    parts = [text[: length // 3], text[length // 3 :]] if cut else [text]
    found = far_longer(words, parts, limit)
    count = sum(len(words.encode(part, bos=False)) for part in parts)
    if found is not None:
        assert count >= found > limit
    else:  # what is let through is not much longer
        assert count <= max(4 * SHORT * limit, limit + 64 * (length // PIECE + 2))


def test_only_so_much_is_encoded_as_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    text = tokenizer()
    encoded: list[int] = []

    def counted(self: Tokenizer, piece: str, **more: Any) -> list[int]:
        encoded.append(len(piece))
        return original(self, piece, **more)

    original = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", counted)
    found = far_longer(text, ["x" * 4_000_000], 8192)
    assert found is not None and found > 8192
    assert sum(encoded) <= 8192 + 2 * PIECE
    encoded.clear()
    assert far_longer(text, ["x" * 8192], 8192) is None
    assert not encoded


def test_other_threads_run_while_a_text_is_encoded(words: Tokenizer) -> None:
    text = "def f(x):\n    return x + 1\n" * 20_000
    ticks, over = 0, threading.Event()
    begun = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not over.is_set():
            begun.set()
            ticks += 1

    other = threading.Thread(target=tick)
    other.start()
    begun.wait()
    before = ticks
    words.coder.encode(text[:10])
    short = ticks - before
    before = ticks
    words.coder.encode(text)
    long = ticks - before
    over.set()
    other.join()
    assert long > 100 + 10 * short
