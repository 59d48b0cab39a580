"""The linear model: what its file says is what it computes, and the one that ships is sound."""

from __future__ import annotations

import math

import pytest

from subllm.languages import LANGUAGES
from subllm.serving.routing.model import Detector, detector, read, value_of, write
from subllm.serving.routing.tokens import (
    INDENTED,
    LINE,
    NUMBER,
    Feature,
    features,
    is_part,
    parts,
    shape,
    tokens,
)

ROWS: list[tuple[Feature, bytes]] = [
    ("def", bytes([255, 1])),
    (("def", "‹a›"), bytes([200, 128])),
    ("‹a›", bytes([128, 130])),
    ("⏎", bytes([127, 129])),
    (("‹a›", "⏎"), bytes([128, 128])),
    (("⏎", "⏎"), bytes([128, 128])),
]


def small() -> Detector:
    return read(write(["python", "java"], [0.5, -0.25], 0.01, ROWS, {"packages": "none"}))


def test_tokens() -> None:
    text = 'def fooBar(x_y):\n    return "é" + 0x1F // CONST_A\n\nFoo'
    assert tokens(text, {"def", "return"})[0] == [
        *("def", "‹aA›", "(", "‹a_a›", ")", ":", INDENTED, "return", '"', "‹å›", '"', "+"),
        *(NUMBER, "//", "‹A_A›", LINE, LINE, "‹Aa›"),
    ]
    assert shape("x" * 100) == "‹long›"
    assert features("a a", set()) == {"‹a›", ("‹a›", "‹a›")}


def test_parts_of_words_that_are_not_known_and_indentation() -> None:
    found = features("if\n\tparseHTML_v2\n    size_t\n", {"if", "size_t"})
    singles = {name for name in found if isinstance(name, str)}
    assert {name for name in singles if is_part(name)} == {
        *("⇥t", "⇥4", "par…", "…_v2", "~parse", "~HTML", "^parse", "$2"),
    }
    assert singles - {name for name in singles if is_part(name)} == {
        *("if", "size_t", "‹A_a›", INDENTED, LINE),
    }
    assert not any(map(is_part, ["~", "^=", "$", "⏎⇥", "‹a›", "...", ("~a", "b")]))
    assert parts("x" * 100) == parts("éclair") == parts("abc") == []


def test_probabilities_by_hand() -> None:
    found = small().probabilities("def f\n\n")  # six features
    python = 0.5 + 0.01 * value_of(6) * (127 + 72 + 0 - 1)
    java = -0.25 + 0.01 * value_of(6) * (-127 + 0 + 2 + 1)
    assert found["python"] == pytest.approx(1 / (1 + math.exp(java - python)))
    assert sum(found.values()) == pytest.approx(1)
    assert small().probabilities("§ §") == small().probabilities("def") == {}


def test_sums_do_not_run_over() -> None:
    """Of many features with the highest weights, in every field."""
    rows: list[tuple[Feature, bytes]] = [(f"w{i}", bytes([255, 0, 255])) for i in range(3000)]
    model = read(write(["a", "b", "c"], [0.0] * 3, 1e-4, rows, {}))
    found = model.probabilities(" ".join(str(name) for name, _ in rows))
    logits = [1e-4 * value_of(3000) * 3000 * weight for weight in (127, -128, 127)]
    total = sum(map(math.exp, logits))
    assert list(found.values()) == pytest.approx([math.exp(x) / total for x in logits])


def test_the_model_that_ships() -> None:
    model = detector()
    assert set(LANGUAGES) < set(model.languages)
    assert len(model.table) >= 10_000
