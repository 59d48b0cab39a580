"""JSON lines: every shape, and every way to get one wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from subllm.errors import CalibrationError, TableError
from subllm.making.calibration import rows
from subllm.making.calibration.jsonl import JsonlSource
from subllm.making.calibration.source import Document


def write(path: Path, *lines: Any) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n")
    return path


def read(path: Path) -> dict[str, Document]:
    return {d.id: d for d in JsonlSource(path, "all").documents(0)}


def test_shapes(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        {"text": "plain", "meta": 1},
        "",
        {"prompt": "def f():", "completion": " pass"},
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"instruction": "Say.", "input": "", "output": "Hi"},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
        {"text": "half \ud800 a pair"},
    )
    assert read(path) == {
        "1": Document("1", "plain"),
        "3": Document("3", "def f(): pass"),
        "4": Document("4", "3", "Add.\n\n1 2"),
        "5": Document("5", "Hi", "Say."),
        "6": Document("6", turns=(("user", "Hi"), ("assistant", "Ho"))),
        "7": Document("7", "half ? a pair"),
    }
    assert JsonlSource(path, "all").name == f"jsonl:{path}"


def test_code_and_holes(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        {"id": "x", "text": "x = 1\n", "fence": "python"},
        {"instruction": "Add.", "output": "x = 1\n", "fence": "python"},
        {"prefix": "x = ", "middle": "1", "suffix": "\ny = 2\n", "fence": "python"},
    )
    assert read(path) == {
        "1": Document("1", "x = 1\n", tag="python"),
        "2": Document("2", "x = 1\n", "Add.", "python"),
        "3": Document("3", "x = 1\ny = 2\n", hole=(4, 5)),
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "x"', r"2: not valid JSON \(.*\); each line is one object"),
        ("[1]", "2: not a JSON object"),
        ("[" * 100_000, "2: "),
        ({"code": "x"}, '2: a row has "text", .*; this one has code'),
        ({"text": 5}, "2: 'text' is no text"),
        ({"prompt": "x"}, "2: 'completion' is missing"),
        ({"instruction": "x", "output": None}, "2: 'output' is missing"),
        ({"text": "x", "fence": 3}, "2: 'fence' is no text"),
        ({"middle": "x", "prefix": ""}, "2: 'suffix' is missing"),
        ({"middle": " ", "prefix": "", "suffix": ""}, "2: 'middle' is blank"),
        ({"messages": []}, "2: 'messages' is no list of messages"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "2: a message needs a 'role'"),
        ({"messages": [{"role": "user"}]}, "2: 'content' is missing"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: Any, message: str) -> None:
    path = write(tmp_path / "a.jsonl", {"text": "good"}, line, {"text": "good"})
    with pytest.raises((CalibrationError, TableError), match=f"a.jsonl:{message}"):
        read(path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "x"}\n{"text": "\xff"}\n')
    with pytest.raises(TableError, match=r"a\.jsonl:2: not valid JSON \('utf-8' codec"):
        read(path)


def test_of_many_rows_a_seeded_selection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "KEPT", 10)
    path = write(tmp_path / "a.jsonl", *({"text": f"row {i}"} for i in range(200)))
    chosen = [[d.id for d in JsonlSource(path, "all").documents(seed)] for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(set(chosen[0])) == 10
