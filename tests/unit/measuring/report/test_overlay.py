from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from subllm.errors import MissingExtraError
from subllm.measuring.report.masks.overlay import ALL, ALONE, NONE, categorised, overlay_page

from .samples import window


def test_two_masks_have_four_categories() -> None:
    kept = np.array([[[True, True, False, False]], [[True, False, True, False]]])
    numbers, names, colours = categorised(kept, ["python", "java"])
    told = [(names[n], colours[n]) for n in numbers[0]]
    assert told == [
        ("kept by all", ALL),
        ("kept by python", ALONE[0]),
        ("kept by java", ALONE[1]),
        ("kept by none", NONE),
    ]


def test_every_set_of_up_to_six_models_has_its_name() -> None:
    labels = ["a", "b", "c", "d", "e", "f"]
    sets = np.arange(64)
    kept = np.stack([(sets >> bit & 1).astype(bool).reshape(8, 8) for bit in range(6)])
    numbers, names, colours = categorised(kept, labels)
    assert len(set(names)) == len(names) == len(colours) == 64
    for number, place in zip(numbers.ravel(), sets, strict=True):
        members = [label for bit, label in enumerate(labels) if place >> bit & 1]
        if 0 < len(members) < 6:
            assert names[number] == "kept by " + ", ".join(members)
    sums = [sum(colours[n]) for n in (0b11, 0b111, 0b1111, 0b11111, 0b111111)]
    assert sums == sorted(sums, reverse=True)  # the more, the darker
    assert len(set(sums)) == 5
    assert [colours[1 << bit] for bit in range(6)] == list(ALONE)


def test_more_models_are_counted() -> None:
    kept = np.tril(np.ones((8, 8), bool), -1)[:, None, :].transpose(2, 1, 0)
    numbers, names, colours = categorised(kept, list("abcdefgh"))
    assert numbers.tolist() == [kept.sum(axis=0)[0].tolist()]
    assert names == ["kept by none", *(f"kept by {n} of 8" for n in range(1, 8)), "kept by all"]
    assert (colours[0], colours[8]) == (NONE, ALL)


def test_the_page_says_what_it_shows_and_loads_nothing() -> None:
    page = overlay_page([window(), window(seed=1)], ["python", "java"], "Masks of tiny")
    assert page.startswith("<!doctype html>")
    assert page.count("<h2>layer 1, q</h2>") == 2
    assert "model.layers.1.q.weight, 20 x 70. In full: outputs 3 to 8, inputs 40 to 49" in page
    assert "cells of 8 x 64 weights" in page
    assert "from none to 50.0%" in page
    assert not re.search(r"""(src|href)\s*=|https?://|@import|url\(""", page)
    for text in ("output 3", "input 49", "kept by java", "java alone", "kept by none"):
        assert text in page


def test_names_cannot_break_the_page() -> None:
    page = overlay_page([window()], ["</script><b>a</b>", '"x"&'], "<script>alert(1)</script>")
    assert "<b>" not in page
    assert "?/script??b?a?/b? alone" in page
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_window_where_all_is_dropped_can_be_drawn() -> None:
    empty = window().model_copy(
        update={"kept": "AAAAAAAAAAAAAAAAAAAA", "differing": "AAAAAAAAAAAAAAAA"}
    )
    assert not empty.kept_array().any()
    assert "from none to 0.0%" in overlay_page([empty], ["a", "b"], "t")


def test_without_treescope_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "treescope", None)
    with pytest.raises(MissingExtraError, match="pictures need treescope"):
        overlay_page([window()], ["python", "java"], "t")
