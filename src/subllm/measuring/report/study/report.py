"""Everything there is to show of a study, as files in one directory.

study.jsonl   the records; `read_study` reads them again
study.md      all tables and pictures on one page, with the commands that made them
study.csv     every score; table3.csv, table4.csv: the paper's tables, ours beside the paper's
table4.png, scores.png, table3.png, figure2.png    where there is something to show
masks/RECIPE/ the comparison of masks, see `masks.report`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from subllm.errors import UsageError
from subllm.measuring.report.files import write_file
from subllm.measuring.report.masks import report as mask_report
from subllm.measuring.report.masks.records import Comparison, read_comparison
from subllm.measuring.report.masks.tables import distance_table, models_table
from subllm.measuring.report.masks.windows import read_windows
from subllm.measuring.report.study import csv_tables, plots
from subllm.measuring.report.study import tables as score_tables
from subllm.measuring.report.study.boards import Board, boards
from subllm.measuring.report.study.records import Study, read_study
from subllm.measuring.report.tables import Cell as TableCell
from subllm.measuring.report.tables import Column, Table, number
from subllm.progress import NullProgress, Progress, bar

RECORDS = "study.jsonl"
MASKS = "masks"
PICTURES: dict[str, Callable[[Study], bytes | None]] = {
    "table4.png": plots.table_iv_picture,
    "scores.png": plots.scores_picture,
    "table3.png": plots.table_iii_picture,
    "figure2.png": plots.figure_2_picture,
}
_NO_FIGURE_2 = (
    "Not drawn: it needs pass@k in Python and a task of mathematics, both of sub-models that "
    "were calibrated on other domains."
)


def load_study(directory: Path) -> Study:
    """The records in `directory`; an empty study where there are none yet. Raises UsageError
    for a malformed file."""
    path = directory / RECORDS
    if not path.exists():
        return Study()
    return read_study(_read(path), where=RECORDS)


def load_comparisons(directory: Path) -> dict[str, Comparison]:
    """The comparisons of masks in `directory`, by recipe. Raises UsageError."""
    paths = sorted((directory / MASKS).glob("*/masks.jsonl"))
    return {
        path.parent.name: read_comparison(_read(path), where=f"{path.parent.name}/{path.name}")
        for path in paths
    }


def write_study(study: Study, directory: Path, progress: Progress | None = None) -> list[Path]:
    """Writes all files but those of the masks, which must be there already, and returns their
    paths. Older ones of the same names are replaced, pictures without a subject removed.

    Raises MissingExtraError without matplotlib, UsageError when the directory cannot be
    written to.
    """
    progress = progress or NullProgress()
    comparisons = load_comparisons(directory)
    files: dict[str, str | bytes] = {
        RECORDS: study.to_lines(),
        "study.csv": csv_tables.all_scores(study).csv(),
        "table3.csv": score_tables.table_iii(study).csv(),
        "table4.csv": csv_tables.table_iv(study).csv(),
    }
    with bar(progress, "pictures", "drawing", len(PICTURES), "items"):
        for name, draw in PICTURES.items():
            picture = draw(study)
            if picture is not None:
                files[name] = picture
            progress.advance("pictures")
    files["study.md"] = page(study, comparisons, files)
    for name in PICTURES:
        if name not in files:
            (directory / name).unlink(missing_ok=True)
    return [write_file(directory / name, content) for name, content in files.items()]


def rewrite_masks(directory: Path, progress: Progress | None = None) -> list[Path]:
    """Tables and pictures of every comparison of masks again, from their records."""
    written = []
    for recipe, comparison in load_comparisons(directory).items():
        place = directory / MASKS / recipe
        overlay = place / "overlay.jsonl"
        windows = read_windows(_read(overlay), where=overlay.name) if overlay.exists() else []
        written += mask_report.write_report(comparison, windows, place, progress)
    return written


def page(
    study: Study, comparisons: Mapping[str, Comparison], pictures: Mapping[str, object]
) -> str:
    """The whole study as Markdown; `pictures` names those that there are."""
    parts = ["# Study of sub-models\n", _made_by(study)]
    parts.append("## Table IV: sub-models and languages\n")
    for recipe in study.recipes:
        for board in boards(study, recipe):
            parts += [table.markdown() for table in tables_of(study, board, markdown=True)]
            parts += [table.markdown() for kept in (False, True)
                      if (table := score_tables.beside_paper(study, board, kept=kept))]  # fmt: skip
    parts += [_picture(name) for name in ("table4.png", "scores.png") if name in pictures]
    parts += ["## Table III: domains\n", score_tables.table_iii(study).markdown()]
    parts += [_picture("table3.png")] if "table3.png" in pictures else []
    parts.append("## Figure 2: code and mathematics by other sub-models\n")
    parts.append(_picture("figure2.png") if "figure2.png" in pictures else _NO_FIGURE_2 + "\n")
    if comparisons:
        parts.append("## Masks\n")
    for name, comparison in comparisons.items():
        place = f"{MASKS}/{name}"
        parts += [models_table(comparison).markdown(), distance_table(comparison).markdown()]
        parts += [_picture(f"{place}/{picture}") for picture in mask_report.PICTURES]
        parts.append(f"[all tables]({place}/masks.md), [overlay]({place}/overlay.html)\n")
    parts += ["## What was measured\n", _models(study).markdown(), _data(study).markdown()]
    return "\n".join(parts)


def tables_of(study: Study, board: Board, *, markdown: bool = False) -> list[Table]:
    """What is to be said of one table of scores."""
    tables = (
        score_tables.scores_table(board, markdown=markdown),
        score_tables.retention_table(study, board),
        score_tables.own_language_table(study, board),
    )
    return [table for table in tables if table is not None]


def _made_by(study: Study) -> str:
    lines = ["Made by", "", "```"]
    lines += [command.command for command in study.commands]
    machines = {
        f"{one.machine.get('cpu')}, {one.machine.get('threads')} threads, "
        f"subllm {one.machine.get('subllm')}"
        for one in study.commands
    }
    return "\n".join([*lines, "```", "", f"on {'; '.join(sorted(machines))}.", ""])


def _models(study: Study) -> Table:
    models = list(dict.fromkeys(cell.model for cell in study.cells))
    columns = [
        Column("MODEL"), Column("METHOD"), Column("PATTERN"), Column("VALUES"), Column("HEAD"),
        number("KEPT", ".1%"), Column("CALIBRATION"), Column("DIGEST"),
    ]  # fmt: skip
    rows: list[list[TableCell]] = [
        [
            *(model.name, model.method, model.pattern, model.values, model.head, model.density),
            f"{model.calibration}, {model.sequences} x {model.length}"
            if model.sequences
            else "none",
            model.digest[:19],
        ]
        for model in models
    ]
    sources = sorted({f"{model.base} from {model.base_source}" for model in models})
    return Table(columns, rows, "Models", "; ".join(sources))


def _data(study: Study) -> Table:
    columns = [
        Column("TASK"), Column("LANGUAGE"), Column("DATA"), number("ROWS", "d"), Column("DIGEST"),
        Column("OWN SOLUTIONS"), Column("TOOL CHAIN"),
    ]  # fmt: skip
    rows: dict[tuple[object, ...], list[TableCell]] = {}
    for cell in study.cells:
        solutions = ""
        if cell.solutions is not None:
            solutions = f"{cell.solutions.passed} of {cell.solutions.run} pass"
            if cell.solutions.failing:
                solutions += f"; failing: {', '.join(cell.solutions.failing)}"
        data = cell.data
        row: list[TableCell] = [
            *(cell.task, cell.language, data.source, data.rows, data.digest[:19]),
            *(solutions, cell.tools.get("toolchain", "")),
        ]
        rows[tuple(row)] = row
    return Table(columns, list(rows.values()), "Data")


def _picture(path: str) -> str:
    return f"![{Path(path).stem}]({path})\n"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path} ({error}); run 'subllm study' again") from error
