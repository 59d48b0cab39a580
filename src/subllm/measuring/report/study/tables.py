"""The paper's tables from a study's records, ours beside the paper's."""

from __future__ import annotations

from dataclasses import dataclass

from subllm.measuring.report.study import paper
from subllm.measuring.report.study.boards import DOMAINS, Board, boards, language_title
from subllm.measuring.report.study.records import DENSE, Cell, Contrast, Recipe, Score, Study
from subllm.measuring.report.tables import Cell as TableCell
from subllm.measuring.report.tables import Column, Table, number

INTERVAL = "in brackets: 95 % interval over problems"
_SHARE = ".2f"


def scores_table(board: Board, *, markdown: bool = False) -> Table:
    """Scores in percent with their intervals; the best sub-model of each column in bold, as
    plain text with a star."""
    best = {column: board.best(column) for column in board.columns}
    rows: list[list[TableCell]] = []
    for row in board.rows:
        cells: list[TableCell] = [row]
        for column in board.columns:
            score = board.at(row, column)
            cells.append(_shown(score, row in best[column], markdown))
        rows.append(cells)
    note = f"{'bold' if markdown else '*'}: best sub-model of the column"
    if any(score.low is not None for score in _scores(board)):
        note += f"; {INTERVAL}"
    return Table(_columns(board), rows, _title(board), "; ".join([note, *_remarks(board)]))


def retention_table(study: Study, board: Board) -> Table | None:
    """The share of the dense score that each sub-model keeps; None without a dense row."""
    if DENSE not in board.rows or len(board.rows) < 2:
        return None
    rows: list[list[TableCell]] = []
    for row in board.rows:
        if row == DENSE:
            continue
        cells: list[TableCell] = [row]
        for column in board.columns:
            kept = kept_share(study, board, row, column)
            cells.append(None if kept is None else _interval(kept, 1.0, _SHARE, _SHARE))
        rows.append(cells)
    title = f"Share of the dense score kept: {board.title}"
    note = "1.00 is dense"
    if any(score.better == "lower" for score in _scores(board)):
        note += "; of perplexity more is worse"
    return Table(_columns(board), rows, title, f"{note}; {INTERVAL}, paired")


def own_language_table(study: Study, board: Board) -> Table | None:
    """Whether each language's own sub-model is the best on it, and by how much; None where no
    language has a sub-model of its own beside another."""
    own = [c for c in board.columns if c in board.rows and board.value(c, c) is not None]
    rows: list[list[TableCell]] = []
    for column in own:
        others = [(value, row) for row in board.rows if row not in (DENSE, column)
                  and (value := board.value(row, column)) is not None]  # fmt: skip
        others = [(value, row) for value, row in others if row != "general"] or others
        if not others:
            continue
        value, name = max(others)
        ours = board.value(column, column)
        published = paper.margin(column)
        rows.append(
            [
                language_title(column),
                None if ours is None else ours * 100,
                f"{name} {value * 100:.1f}",
                _points(study.contrast("margin", *_pair(board, column, name), board.score)),
                _points(study.contrast("margin", *_pair(board, column, "general"), board.score)),
                f"{published[1]:+.1f}" if published else None,
            ]
        )
    if not rows or not board.score.startswith("pass@"):
        return None
    columns = [
        Column("LANGUAGE"), number("OWN", ".1f"), Column("NEXT BEST", "right"),
        Column("MARGIN", "right"), Column("OVER GENERAL", "right"), Column("PAPER", "right"),
    ]  # fmt: skip
    note = (
        f"points by which a language's own sub-model is better; {INTERVAL}, paired. Paper: "
        f"margin over the next best, {paper.TABLE_IV_SCORE}, {paper.TABLE_IV_MODEL}"
    )
    return Table(columns, rows, f"Each language's own sub-model: {board.title}", note)


def beside_paper(study: Study, board: Board, *, kept: bool) -> Table | None:
    """Table IV: ours and the paper's figure for each language, scores or (`kept`) shares of
    the dense score. None for a board without languages of the paper."""
    languages = [c for c in board.columns if c in paper.TABLE_IV[DENSE]]
    if not languages or not board.score.startswith("pass@"):
        return None
    form = ".2f" if kept else ".1f"
    columns = [Column("CALIBRATED ON")]
    for language in languages:
        columns += [number(language_title(language).upper(), form), number("PAPER", form)]
    rows: list[list[TableCell]] = []
    for row in board.rows:
        if kept and row == DENSE:
            continue
        cells: list[TableCell] = [row]
        for language in languages:
            if kept:
                share = kept_share(study, board, row, language)
                cells += [share.value if share else None, paper.retention(row, language)]
            else:
                value = board.value(row, language)
                published = paper.TABLE_IV.get(row, {}).get(language)
                cells += [None if value is None else value * 100, published]
        rows.append(cells)
    what = "share of the dense score kept" if kept else board.measure
    title = f"Table IV, {what}: ours and {paper.TITLE}"
    note = (
        f"ours: {board.recipe.title}; {board.measure}. Paper: {paper.TABLE_IV_MODEL}, "
        f"Wanda 50 % unstructured, {paper.TABLE_IV_SCORE} on HumanEval"
    )
    return Table(columns, rows, title, note)


@dataclass(frozen=True)
class DomainRow:
    """One row of Table III; scores in percent. calibration: of the best sub-model."""

    domain: str
    model: str
    measure: str
    before: float
    after: float
    calibration: str
    ours: bool


def domain_rows(study: Study) -> list[DomainRow]:
    """The best sub-model on each domain, then the paper's rows of that domain.

    Code is Python, as in the paper; other languages have rows of their own. Several tasks of a
    domain count by their mean.
    """
    ours: list[DomainRow] = []
    for recipe in study.recipes:
        for board in boards(study, recipe):
            if board.task == "domains":
                for domain in DOMAINS:
                    columns = [c for c in board.columns if _domain(board, c) == domain]
                    ours += _best_row(recipe, board, columns, domain)
            elif board.score.startswith("pass@"):
                for column in board.columns:
                    named = "code" if column == "python" else f"code, {language_title(column)}"
                    ours += _best_row(recipe, board, [column], named)
    rows = []
    code = sorted({row.domain for row in ours} - {"code", *DOMAINS})
    for domain in ("code", *code, *DOMAINS):
        rows += [row for row in ours if row.domain == domain]
        rows += [
            DomainRow(domain, row.model, "", row.before, row.after, row.calibration, ours=False)
            for row in paper.TABLE_III
            if row.domain == domain
        ]
    return rows


def _best_row(recipe: Recipe, board: Board, columns: list[str], domain: str) -> list[DomainRow]:
    """None or one: of the sub-models that have all columns."""
    means: dict[str, float] = {}
    for row in board.rows:
        values = [board.value(row, column) for column in columns]
        whole = [value for value in values if value is not None]
        if whole and len(whole) == len(columns):
            means[row] = 100 * sum(whole) / len(whole)
    if DENSE not in means or len(means) < 2:
        return []
    before = means.pop(DENSE)
    best = max(means, key=means.__getitem__)
    measure = f"{board.task} {board.measure}"
    if board.task == "domains":
        measure = columns[0] if len(columns) == 1 else f"mean of {len(columns)} tasks"
    return [DomainRow(domain, recipe.base, measure, before, means[best], best, ours=True)]


def _domain(board: Board, column: str) -> str:
    return next(cell.domain for (_, c), cell in board.cells.items() if c == column)


def table_iii(study: Study) -> Table:
    """Best sub-model per domain, before -> after, ours beside the paper's."""
    columns = [
        Column("DOMAIN"), Column("MODEL"), number("DENSE", ".2f"), number("BEST", ".2f"),
        number("DROP", ".2f"), number("KEPT", _SHARE), Column("CALIBRATED ON"), Column("MEASURE"),
    ]  # fmt: skip
    rows: list[list[TableCell]] = [
        [
            row.domain,
            f"{row.model} (ours)" if row.ours else row.model,
            row.before,
            row.after,
            row.before - row.after,
            row.after / row.before if row.before else None,
            row.calibration,
            row.measure if row.ours else "as in the paper",
        ]
        for row in domain_rows(study)
    ]
    note = f"scores in percent, drop in points; other rows: {paper.TITLE}, 50 % unstructured"
    return Table(columns, rows, "Table III: the best sub-model of each domain", note)


def kept_share(study: Study, board: Board, row: str, column: str) -> Score | None:
    """Share of the dense score that is kept, with its interval where the records have it."""
    cell, dense = board.cell(row, column), board.cell(DENSE, column)
    value, whole = board.value(row, column), board.value(DENSE, column)
    if cell is None or value is None or not whole:
        return None
    found = study.contrast("retention", cell, dense, board.score)
    if found is None:
        return Score(name="kept", value=value / whole)
    return Score(name="kept", value=found.value, low=found.low, high=found.high)


def _pair(board: Board, column: str, other: str) -> tuple[Cell, Cell | None]:
    return board.cells[column, column], board.cell(other, column)


def _points(contrast: Contrast | None) -> str | None:
    """`+2.4 (-3 to +8)`."""
    if contrast is None:
        return None
    text = f"{contrast.value * 100:+.1f}"
    if contrast.low is not None and contrast.high is not None:
        text += f" ({contrast.low * 100:+.0f} to {contrast.high * 100:+.0f})"
    return text


def _scores(board: Board) -> list[Score]:
    found = (board.at(row, column) for row in board.rows for column in board.columns)
    return [score for score in found if score is not None]


def _shown(score: Score | None, best: bool, markdown: bool) -> str | None:
    if score is None:
        return None
    lower = score.better == "lower"
    scale, form = (1.0, ".3f") if lower else (100.0, ".1f")
    value = format(score.value * scale, form)
    marked = f"**{value}**" if markdown else f"{value}*"
    return (marked if best else value) + _bounds(score, scale, ".3f" if lower else ".0f")


def _interval(score: Score, scale: float, form: str, bounds: str) -> str:
    return format(score.value * scale, form) + _bounds(score, scale, bounds)


def _bounds(score: Score, scale: float, form: str) -> str:
    if score.low is None or score.high is None:
        return ""
    return f" ({score.low * scale:{form}}-{score.high * scale:{form}})"


def _columns(board: Board) -> list[Column]:
    titles = (language_title(column).upper() for column in board.columns)
    return [Column("CALIBRATED ON"), *(Column(title, "right") for title in titles)]


def _title(board: Board) -> str:
    unit = "" if board.task == "perplexity" else ", in percent"
    return f"{board.title}{unit}: {board.recipe.title}"


def _remarks(board: Board) -> list[str]:
    """What must be known to read the figures."""
    found = [f"{' or '.join(map(str, board.asked))} {_unit(board)} a column"]
    if board.left_out:
        found.append(
            f"{board.left_out} cells of other data, fewer problems or another harness are left out"
        )
    for column in board.columns:
        versions = {cell.tools.get("toolchain") for (_, c), cell in board.cells.items()
                    if c == column}  # fmt: skip
        if len(versions) > 1:
            found.append(f"{column}: measured with several tool chains")
        failing = next((cell.solutions.failing for (_, c), cell in board.cells.items()
                        if c == column and cell.solutions), ())  # fmt: skip
        if failing:
            found.append(
                f"{language_title(column)}: {len(failing)} of the data's own solutions fail, "
                "which counts against every model"
            )
    found += dict.fromkeys(note for cell in board.cells.values() for note in cell.notes)
    return found


def _unit(board: Board) -> str:
    units = {"domains": "questions", "perplexity": "sequences", "agreement": "prompts"}
    return units.get(board.task, "problems")
