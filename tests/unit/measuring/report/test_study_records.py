from __future__ import annotations

import json

import pytest

from subllm.errors import UsageError
from subllm.measuring.report.study.records import Contrast, Study, read_study

from .study_samples import COMMAND, cell, greedy_cells, model, sampled_cells, small


def test_the_file_reads_back() -> None:
    contrast = Contrast(kind="margin", a="x", b="y", score="pass@1", value=0.1, low=-0.1, high=0.2)
    study = Study([COMMAND], [*sampled_cells(), *greedy_cells()], [contrast])
    again = read_study(study.to_lines())
    assert (again.commands, again.cells, again.contrasts) == (
        study.commands, study.cells, study.contrasts,
    )  # fmt: skip
    assert again.to_lines() == study.to_lines()
    assert len(study.to_lines().splitlines()) == 1 + 1 + 10 + 1


def test_the_order_of_measuring_does_not_show() -> None:
    forwards = Study([COMMAND], [*greedy_cells(), *sampled_cells()])
    backwards = Study([COMMAND], [*greedy_cells(), *sampled_cells()][::-1])
    assert forwards.to_lines() == backwards.to_lines()
    languages = list(dict.fromkeys(one.model.language for one in forwards.cells))
    assert languages == ["dense", "general", "python", "javascript"]


def test_recipes_have_their_sub_models_and_the_dense_base() -> None:
    other = cell(model("python", pattern="2:4"), "python", {"pass@1": 0.1})
    int4 = cell(model("dense", values="int4"), "python", {"pass@1": 0.4})
    study = Study([], [*greedy_cells(), other, int4])
    eight, two = sorted(study.recipes, key=lambda recipe: recipe.pattern, reverse=True)
    assert (eight.pattern, two.pattern) == ("8:16", "2:4")
    assert study.of(eight) == list(Study([], greedy_cells()).cells)
    assert {one.model.language for one in study.of(two)} == {"dense", "python"}
    assert int4 not in study.of(two)
    assert eight.title == "tiny:1m, wanda 8:16, int8, head int8, 128 x 512 tokens"


def test_a_label_names_the_calibration_where_there_are_several() -> None:
    own = model("python", calibration="path:app")
    assert Study([], [cell(own, "python", {"pass@1": 0.1})]).label(own) == "python"
    study = Study([], [*greedy_cells(), cell(own, "python", {"pass@1": 0.1})])
    assert study.label(own) == "python (path:app)"
    assert study.label(model("python")) == "python (pack:python)"
    assert study.label(model("javascript")) == "javascript"


def test_a_cell_keeps_its_place_whatever_digest_problems_and_samples() -> None:
    first = cell("python", "java", {"pass@1": 0.1})
    same = cell(model("python", digest="sha256-new", name="tiny:1m-python-new"), "java",
                {"pass@1": 0.2}, asked=3, samples=2)  # fmt: skip
    assert first.place == same.place
    for other in (
        cell("python", "cpp", {"pass@1": 0.1}),
        cell("java", "java", {"pass@1": 0.1}),
        cell(model("python", pattern="2:4"), "java", {"pass@1": 0.1}),
        cell(model("python", length=256), "java", {"pass@1": 0.1}),
        cell("python", "java", {"pass@1": 0.1}, task="mbpp"),
        sampled_cells()[1],
    ):
        assert other.place != first.place


def corrupted(line: int, **changes: object) -> str:
    rows = [json.loads(row) for row in small().to_lines().splitlines()]
    rows[line] |= changes
    return "\n".join(map(json.dumps, rows))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "study.jsonl is empty; run 'subllm study --out DIR'"),
        ("{]", "study.jsonl:1 is not JSON"),
        (corrupted(0, version=2), "study.jsonl:1: version: input should be 1"),
        (corrupted(1, command=3), "study.jsonl:2: command: input should be a valid string"),
        (corrupted(2, asked="many"), "study.jsonl:3: asked: input should be a valid integer"),
        (corrupted(2, record="other"), "study.jsonl:3: record: input should be 'cell'"),
        (small().to_lines() + "7\n", "study.jsonl:13: input should be a valid dictionary"),
    ],
)
def test_malformed_files_are_told_by_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_study(text, where="study.jsonl")
