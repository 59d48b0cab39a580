"""Functions that a base writes: what it is given, and which answers are kept."""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import functions
import pytest

from subllm.calibration.packs import FileSample, read_pack
from subllm.store.store import Store
from subllm.textmaking import filters
from subllm.textmaking.known import KnownText

GOOD = 'def count_gaps(text: str) -> int:\n    """Count gaps."""\n    return text.count(" ")\n'


def reason(text: str, ended: bool = True, problem: str = "") -> str | None:
    return functions.unfit(text, ended, KnownText([problem]), filters.Seen())


def test_beginnings_are_drawn_by_a_seed_and_each_is_another() -> None:
    first = list(itertools.islice(functions.beginnings("python"), 500))
    assert first == list(itertools.islice(functions.beginnings("python"), 500))
    assert first != list(itertools.islice(functions.beginnings("python", seed=8), 500))
    assert len({one.id for one in first}) == len({one.text for one in first}) == 500
    begun = sum('"""' in one.text for one in first) / 500
    assert 0.6 < begun < 0.8
    for one in first:
        assert ("List[" in one.text) == ("import List" in one.text) or "Tuple" in one.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD, None),
        (GOOD.replace("return", "return ("), "does not parse"),
        (GOOD + "\n\ndef other():\n    return 1\n", "no function"),
        ('def f():\n    """Only said."""\n', "no function"),
        (GOOD.replace('return text.count(" ")', "pass"), "placeholder"),
        (GOOD.replace("Count gaps", "Считает пробелы"), "not English"),
    ],
)
def test_what_is_no_function_to_learn_from(text: str, expected: str | None) -> None:
    assert reason(text) == expected


def test_cut_recited_or_repeated_functions_are_left_out() -> None:
    assert reason(GOOD, ended=False) == "cut"
    recited = "def f(alpha, beta, gamma, delta):\n    return alpha + beta * gamma - delta + alpha\n"
    assert reason(recited, problem=recited) == "benchmark overlap"
    seen = filters.Seen()
    seen.add(GOOD)
    assert functions.unfit(GOOD, True, KnownText([]), seen) == "near duplicate"


def test_answers_become_a_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = tmp_path / "answers.jsonl"
    lines = [
        {
            "id": "function-00002",
            "ended": True,
            "tokens": 9,
            "prompt": GOOD[:33],
            "text": GOOD[33:],
        },
        {"id": "function-1", "ended": False, "tokens": 4, "prompt": "def f(", "text": "a"},
    ]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"id": "cut off')
    monkeypatch.setattr(functions, "find_base", lambda store, name: {"base": name})
    monkeypatch.setattr(functions, "load_settings", lambda: argparse.Namespace(home=tmp_path))
    monkeypatch.setattr(functions, "Store", Store)
    functions.main(["assemble", "--answers", str(answers), "--out", str(tmp_path / "out")])
    pack = read_pack(tmp_path / "out/python.jsonl.xz")
    (sample,) = pack.samples
    assert isinstance(sample, FileSample) and sample.code == GOOD and sample.tag == "python"
    told = pack.header.provenance
    assert told["generated"] == 2 and told["accepted"] == 1 and told["rejected"] == {"cut": 1}
