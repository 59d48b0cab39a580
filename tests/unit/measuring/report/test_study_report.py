"""The pictures and files of a study, from its records alone."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib import image

from subllm.errors import MissingExtraError, UsageError
from subllm.measuring.report.study.plots import (
    figure_2_lines,
    figure_2_picture,
    scores_picture,
    table_iii_picture,
    table_iv_picture,
)
from subllm.measuring.report.study.records import Study
from subllm.measuring.report.study.report import load_study, page, rewrite_masks, write_study

from .samples import five
from .study_samples import COMMAND, cell, greedy_cells, question_cells, small


def pixels(png: bytes | None) -> npt.NDArray[np.float32]:
    assert png is not None
    return np.asarray(image.imread(io.BytesIO(png)))


def has_colour(png: bytes | None, colour: tuple[int, int, int]) -> bool:
    shown = (pixels(png)[..., :3] * 255).round().astype(int)
    return bool((np.abs(shown - colour).max(axis=-1) <= 2).any())


def test_pictures_are_the_same_for_the_same_records() -> None:
    for draw in (table_iv_picture, scores_picture, table_iii_picture):
        first = draw(small())
        assert first is not None and first == draw(small())
        assert first != draw(Study([], greedy_cells()[:4]))


def test_pictures_need_a_subject() -> None:
    questions = Study([], question_cells())
    assert table_iv_picture(questions) is None
    assert scores_picture(questions) is None
    assert table_iii_picture(questions) is not None
    assert figure_2_picture(questions) is None
    assert figure_2_picture(small()) is None
    for draw in (table_iv_picture, scores_picture, table_iii_picture, figure_2_picture):
        assert draw(Study()) is None


def test_scores_have_a_colour_for_each_measure() -> None:
    blue, vermilion, orange = (0, 114, 178), (213, 94, 0), (230, 159, 0)
    greedy = Study([], greedy_cells())
    assert has_colour(scores_picture(greedy), blue)
    assert not has_colour(scores_picture(greedy), vermilion)
    assert all(has_colour(scores_picture(small()), one) for one in (blue, vermilion, orange))


def test_figure_2_leaves_out_what_was_calibrated_on_the_domain() -> None:
    maths = cell(
        next(one.model for one in question_cells() if one.model.language == "math_qa"),
        "python", {"pass@1": 0.11},
    )  # fmt: skip
    hub = next(one.model for one in question_cells() if one.model.language == "python")
    code = [cell("dense", "python", {"pass@1": 0.42}), cell(hub, "python", {"pass@1": 0.24}), maths]
    study = Study([], [*question_cells(), *code])
    (lines,) = figure_2_lines(study)
    assert lines.code == pytest.approx({"math_qa": 11})
    assert lines.math == pytest.approx({"python": 12, "hellaswag": 8})
    assert lines.dense == pytest.approx({"code": 42, "math": 30})
    assert has_colour(figure_2_picture(study), (0, 114, 178))


def test_files_can_be_made_again_and_stale_pictures_go(tmp_path: Path) -> None:
    (tmp_path / "figure2.png").write_bytes(b"old")
    files = write_study(small(), tmp_path)
    names = {path.name for path in files}
    assert names == {path.name for path in tmp_path.iterdir()}
    assert names == {
        "study.jsonl", "study.md", "study.csv", "table3.csv", "table4.csv",
        "table4.png", "scores.png", "table3.png",
    }  # fmt: skip
    before = {path.name: path.read_bytes() for path in files}
    assert load_study(tmp_path).cells == small().cells
    for path in files:
        if path.name != "study.jsonl":
            path.unlink()
    write_study(load_study(tmp_path), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_page_has_tables_pictures_masks_and_the_command(tmp_path: Path) -> None:
    masks = tmp_path / "masks" / "recipe"
    masks.mkdir(parents=True)
    (masks / "masks.jsonl").write_text(five().to_lines())
    assert {path.name for path in rewrite_masks(tmp_path)} == {
        "masks.jsonl", "masks.md", "masks.csv",
        *(f"masks-{what}.png" for what in ("models", "types", "layers")),
    }  # fmt: skip
    write_study(small(), tmp_path)
    text = (tmp_path / "study.md").read_text()
    assert "```\nsubllm study --out study\n```\n\non a CPU, 2 threads, subllm 0.1.0." in text
    assert "| python | **24.0** (19-29) | 16.0 (11-21) |" in text
    assert "Table IV, greedy pass@1: ours and Puccioni et al. 2025" in text
    assert "Not drawn: it needs pass@k in Python and a task of mathematics" in text
    assert "Jaccard distance of kept weights" in text
    for link in ("table4.png", "scores.png", "table3.png", "masks/recipe/masks-models.png"):
        assert f"]({link})" in text
        assert (tmp_path / link).exists()
    assert (
        "| tiny:1m-python | wanda | 8:16 | int8 | int8 | 50.0% | pack:python, 128 x 512 |" in text
    )


def test_a_page_without_cells_is_no_error() -> None:
    assert "subllm study --out study" in page(Study([COMMAND]), {}, {})


def test_records_that_are_missing_or_damaged(tmp_path: Path) -> None:
    assert load_study(tmp_path / "none").cells == ()
    (tmp_path / "study.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match=r"study\.jsonl:1"):
        load_study(tmp_path)
    (tmp_path / "study.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(UsageError, match="cannot read"):
        load_study(tmp_path)


def test_nothing_is_written_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="pip install 'subllm\\[report\\]'"):
        write_study(small(), tmp_path)
    assert list(tmp_path.iterdir()) == []
