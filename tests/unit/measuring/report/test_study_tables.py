from __future__ import annotations

import csv
import io

import pytest

from subllm.measuring.report.study import paper
from subllm.measuring.report.study.boards import Board, boards
from subllm.measuring.report.study.csv_tables import all_scores, table_iv
from subllm.measuring.report.study.records import Contrast, Data, Solutions, Study
from subllm.measuring.report.study.tables import (
    beside_paper,
    domain_rows,
    own_language_table,
    retention_table,
    scores_table,
    table_iii,
)

from .study_samples import GREEDY_SCORES, cell, greedy_cells, model, question_cells, small


def all_boards(study: Study) -> list[Board]:
    return [board for recipe in study.recipes for board in boards(study, recipe)]


def test_the_papers_figures_agree_with_what_it_says_of_them() -> None:
    own = {language: paper.retention(language, language) for language in paper.TABLE_IV["dense"]}
    assert own == pytest.approx({"python": 0.859, "java": 0.880, "cpp": 0.891, "javascript": 0.889},
                                abs=5e-4)  # fmt: skip
    margins = {language: paper.margin(language) for language in paper.TABLE_IV["dense"]}
    assert {language: round(found[1], 1) for language, found in margins.items() if found} == {
        "python": 4.3, "java": 4.4, "cpp": 2.9, "javascript": 0.9,
    }  # fmt: skip
    assert margins["javascript"] == ("python", pytest.approx(0.9))
    drops = {(row.model, row.domain): round(row.before - row.after, 2) for row in paper.TABLE_III}
    assert len(drops) == 16
    assert drops["CodeLlama-7B", "code"] == 7.47
    assert drops["Mistral-7B", "translation"] == 1.64
    assert drops["Gemma-7B", "math"] == 10.24
    assert drops["CodeLlama-13B", "csr"] == 2.20
    assert paper.retention("general", "python") is None
    assert paper.margin("rust") is None


def test_boards_are_languages_by_models_and_measures_apart() -> None:
    greedy, one, ten = all_boards(small())
    assert (greedy.title, one.title, ten.title) == (
        "humaneval-x, greedy pass@1",
        "humaneval-x, pass@1 of 10 samples at temperature 0.8",
        "humaneval-x, pass@10 of 10 samples at temperature 0.8",
    )
    assert greedy.rows == ("dense", "general", "python", "javascript")
    assert greedy.columns == ("python", "javascript")
    found = {row: tuple(greedy.value(row, c) for c in greedy.columns) for row in greedy.rows}
    assert found == GREEDY_SCORES
    assert (ten.rows, ten.columns) == (("dense", "python"), ("python",))
    assert (ten.value("python", "python"), ten.value("python", "java")) == (0.44, None)


def test_the_best_is_a_sub_model_and_equals_share_it() -> None:
    greedy = all_boards(small())[0]
    assert greedy.best("python") == ("python",)
    assert greedy.best("javascript") == ("general", "javascript")
    assert greedy.best("java") == ()


def test_columns_hold_only_what_compares() -> None:
    fewer = [cell(name, "python", {"pass@1": 0.9}, asked=3) for name in ("dense", "java")]
    other = cell("cpp", "python", {"pass@1": 0.8},
                 data=Data(source="other", digest="sha256-other", rows=164))  # fmt: skip
    (board,) = all_boards(Study([], [*greedy_cells(), *fewer, other]))
    assert board.rows == ("dense", "general", "python", "javascript")
    assert board.value("dense", "python") == 0.42
    assert board.left_out == 3
    text = scores_table(board).note
    assert "3 cells of other data, fewer problems or another harness are left out" in text
    assert "100 problems a column" in text


def test_perplexity_is_better_when_lower() -> None:
    cells = [cell(name, "python", {"perplexity": value}, task="perplexity", drawing=None,
                  domain="text")
             for name, value in (("dense", 2.5), ("python", 3.0), ("java", 4.0))]  # fmt: skip
    (board,) = all_boards(Study([], cells))
    assert board.title == "perplexity"
    assert board.best("python") == ("python",)
    kept = retention_table(Study([], cells), board)
    assert kept is not None
    assert [row[1] for row in kept.rows] == ["1.20", "1.60"]
    assert "of perplexity more is worse" in kept.note
    assert own_language_table(Study([], cells), board) is None
    assert beside_paper(Study([], cells), board, kept=False) is None


def test_scores_are_percent_with_intervals_and_the_best_marked() -> None:
    greedy = all_boards(small())[0]
    text = scores_table(greedy)
    assert text.rows[0] == ["dense", "42.0 (37-47)", "40.0 (35-45)"]
    assert text.rows[2] == ["python", "24.0* (19-29)", "16.0 (11-21)"]
    assert text.rows[1][2] == text.rows[3][2] == "20.0* (15-25)"
    bold = scores_table(greedy, markdown=True)
    assert bold.rows[2] == ["python", "**24.0** (19-29)", "16.0 (11-21)"]
    assert "| python | **24.0** (19-29) |" in bold.markdown()
    assert "bold: best sub-model of the column; in brackets: 95 % interval" in bold.note
    assert max(map(len, text.plain().splitlines())) <= 80


def test_what_must_be_known_is_said() -> None:
    failing = Solutions(run=100, passed=97, failing=("a", "b", "c"))
    cells = [
        cell("dense", "python", {"pass@1": 0.5}, solutions=failing),
        cell("python", "python", {"pass@1": 0.4}, solutions=failing, notes=("a note",),
             tools={"toolchain": "python 2.0"}),
    ]  # fmt: skip
    (board,) = all_boards(Study([], cells))
    note = scores_table(board).note
    assert "Python: 3 of the data's own solutions fail" in note
    assert "python: measured with several tool chains" in note
    assert "a note" in note


def contrast(kind: str, a: str, b: str, value: float, low: float, high: float) -> Contrast:
    """Of greedy cells in Python."""
    cells = {one.model.language: one for one in greedy_cells() if one.language == "python"}
    return Contrast.model_validate(
        {
            "kind": kind, "a": cells[a].identity, "b": cells[b].identity, "score": "pass@1",
            "value": value, "low": low, "high": high,
        }
    )  # fmt: skip


def test_retention_takes_its_interval_from_the_records() -> None:
    study = Study([], greedy_cells(), [contrast("retention", "python", "dense", 0.5714, 0.4, 0.75)])
    greedy = all_boards(study)[0]
    table = retention_table(study, greedy)
    assert table is not None
    assert [row[0] for row in table.rows] == ["general", "python", "javascript"]
    assert table.rows[1][1] == "0.57 (0.40-0.75)"
    assert table.rows[0][1] == "0.43"  # 18 / 42
    without = Study([], [one for one in greedy_cells() if one.model.language != "dense"])
    assert retention_table(without, all_boards(without)[0]) is None


def test_own_language() -> None:
    contrasts = [
        contrast("margin", "python", "javascript", 0.04, -0.02, 0.1),
        contrast("margin", "python", "general", 0.06, 0.001, 0.12),
    ]
    study = Study([], greedy_cells(), contrasts)
    table = own_language_table(study, all_boards(study)[0])
    assert table is not None
    python, javascript = table.rows
    assert python == ["Python", 24.0, "javascript 20.0", "+4.0 (-2 to +10)", "+6.0 (+0 to +12)",
                      "+4.3"]  # fmt: skip
    # Not the general one, which the paper does not have.
    assert javascript[:3] == ["JS", 20.0, "python 16.0"]
    assert max(map(len, table.plain().splitlines())) <= 80


def test_table_iv_stands_beside_the_papers() -> None:
    study = small()
    greedy = all_boards(study)[0]
    scores = beside_paper(study, greedy, kept=False)
    assert scores is not None
    assert [column.title for column in scores.columns] == [
        "CALIBRATED ON", "PYTHON", "PAPER", "JS", "PAPER",
    ]  # fmt: skip
    assert scores.rows[0] == ["dense", 42.0, 71.0, 40.0, 67.7]
    assert scores.rows[1] == ["general", 18.0, None, 20.0, None]
    assert scores.rows[2] == ["python", 24.0, 61.0, 16.0, 59.3]
    kept = beside_paper(study, greedy, kept=True)
    assert kept is not None
    assert [row[0] for row in kept.rows] == ["general", "python", "javascript"]
    assert kept.rows[1] == pytest.approx(
        ["python", 0.24 / 0.42, 61.0 / 71.0, 0.16 / 0.40, 59.3 / 67.7]
    )
    assert "CodeLlama-13B, Wanda 50 % unstructured, pass@10" in kept.note


def test_table_iii_has_the_best_sub_model_of_each_domain_then_the_papers() -> None:
    study = Study([], [*greedy_cells(), *question_cells()])
    ours = [row for row in domain_rows(study) if row.ours]
    assert [(row.domain, row.calibration, row.measure) for row in ours] == [
        ("code", "python", "humaneval-x greedy pass@1"),
        ("code, JS", "general", "humaneval-x greedy pass@1"),
        ("csr", "python", "mean of 2 tasks"),
        ("math", "math_qa", "gsm8k"),
    ]
    code, _, csr, maths = ours
    assert (code.before, code.after) == (pytest.approx(42), pytest.approx(24))
    assert (csr.before, csr.after) == (pytest.approx(65), pytest.approx(55))
    assert (maths.before, maths.after) == (pytest.approx(30), pytest.approx(21))
    rows = table_iii(study).rows
    assert rows[0][:6] == pytest.approx(["code", "tiny:1m (ours)", 42.0, 24.0, 18.0, 24 / 42])
    assert rows[1][:5] == pytest.approx(["code", "CodeLlama-7B", 60.5, 53.03, 7.47])
    assert len(rows) == len(ours) + 16


def test_a_sub_model_counts_for_a_domain_when_all_tasks_are_there() -> None:
    cells = [one for one in question_cells()
             if (one.model.language, one.task) != ("python", "boolq")]  # fmt: skip
    (csr, _) = [row for row in domain_rows(Study([], cells)) if row.ours]
    assert (csr.domain, csr.calibration) == ("csr", "hellaswag")
    assert csr.after == pytest.approx(54)


def test_csv_has_every_score_in_full() -> None:
    rows = list(csv.DictReader(io.StringIO(all_scores(small()).csv())))
    assert len(rows) == 8 + 2 * 2
    ten = next(
        row for row in rows if row["score"] == "pass@10" and row["model"] == "tiny:1m-python"
    )
    assert (ten["value"], ten["samples"], ten["temperature"]) == ("0.44", "10", "0.8")
    assert (ten["toolchain"], ten["data"]) == ("python 1.0", "python.jsonl")
    fours = list(csv.DictReader(io.StringIO(table_iv(small()).csv())))
    assert sum(row["source"] == "ours" for row in fours) == 8 + 2 * 2
    assert sum(row["source"] != "ours" for row in fours) == 20
    python = next(row for row in fours if row["score"] == "greedy pass@1"
                  and (row["calibrated_on"], row["language"]) == ("python", "python"))  # fmt: skip
    assert float(python["kept"]) == pytest.approx(0.24 / 0.42)


def test_several_recipes_have_tables_of_their_own() -> None:
    other = [cell(model("python", pattern="2:4"), "python", {"pass@1": 0.1})]
    found = all_boards(Study([], [*greedy_cells(), *other]))
    assert [(board.recipe.pattern, board.rows) for board in found] == [
        ("2:4", ("dense", "python")),
        ("8:16", ("dense", "general", "python", "javascript")),
    ]
