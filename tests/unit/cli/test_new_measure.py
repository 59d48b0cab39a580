"""A measure of somebody else's: one file, like this one, and one line in the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from subllm.measuring.evaluation.bench import Bench, TextSide
from subllm.measuring.evaluation.measures import table
from subllm.measuring.evaluation.measures.measure import Load, Measure
from subllm.measuring.evaluation.options import TaskOptions
from subllm.measuring.evaluation.record_file import RecordFile
from subllm.measuring.evaluation.records import DataFacts, Result
from subllm.measuring.report.study.records import Score
from subllm.models.store.manifest import sha256_of
from subllm.models.store.store import Store

from .samples import Ran
from .tiny_store import BASE

TEXT = "def add(a, b):\n    return a + b\n"


class MostLikely:
    """The share of a text's tokens that were the model's first choice."""

    task = "first-choice"
    language = "python"
    domain = "text"
    asked = samples = 1

    def facts(self, store: Store, text: TextSide) -> dict[str, Any]:
        return {"task": self.task, "data": sha256_of(TEXT.encode())}

    def load(self, text: TextSide) -> Load:
        return Load(prompt_tokens=len(TEXT))

    def prepare(self, bench: Bench) -> None:
        pass

    def run(self, bench: Bench, model: str) -> Result:
        data = DataFacts(source="here", form="text", digest=sha256_of(TEXT.encode()), rows=1)
        header = bench.header(model, self.task, self.language, data)
        with RecordFile(bench.records, header) as records:
            ids = tuple(bench.text(model).tokenizer.encode(TEXT))
            scores = bench.engines(model, 1, len(ids)).score(ids, top=1)[1:]
            first = sum(score.top[0][0] == score.token for score in scores)
            figures = records.conclude({self.task: first / len(scores)}, 1, {"wall_seconds": 0.1})
            found = (Score(name=self.task, value=figures[self.task]),)
            return Result(header, figures, records.path, 1, found)


def load(task: str, options: TaskOptions, bench: Bench, texts: Sequence[TextSide]) -> list[Measure]:
    return [MostLikely()]


@pytest.fixture(autouse=True)
def one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.MEASURES, MostLikely.task, load)  # type: ignore[arg-type]


def test_eval_shows_its_scores(tiny: Store, subllm: Callable[..., Ran]) -> None:
    ran = subllm("eval", f"{BASE}-python", "--task", "first-choice")
    assert ran.status == 0, ran.err
    head, row = (line.split() for line in ran.out.splitlines()[-2:])
    assert head == ["LANGUAGE", "FIRST-CHOICE"]
    assert row[0] == "python" and 0 <= float(row[1]) <= 1
    ran = subllm("eval", f"{BASE}-python", "--task", "first")
    assert "did you mean first-choice" in ran.err


def test_study_has_a_table_of_it(tiny: Store, subllm: Callable[..., Ran], tmp_path: Path) -> None:
    options = (
        "--set",
        f"base={BASE}",
        "--set",
        "calibration=general",
        "--set",
        "sequences=4",
        "--set",
        "seq_len=64",
    )
    command = ("study", *options, "--set", "tasks=first-choice", "--out", str(tmp_path))
    ran = subllm(*command, "--json")
    assert ran.status == 0, ran.err
    scores = {cell["model"]["language"]: cell["scores"][0] for cell in ran.json["cells"]}
    assert set(scores) == {"dense", "general"}
    assert {score["name"] for score in scores.values()} == {"first-choice"}
    assert "**first-choice, in percent: " in (tmp_path / "study.md").read_text()
    assert "(2 done)" in subllm(*command).err
