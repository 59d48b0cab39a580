from __future__ import annotations

import csv
import io

import pytest

from subllm.measuring.report.tables import Column, Table, number

TABLE = Table(
    [Column("NAME"), number("SCORE", ".1f"), number("N", ",d"), Column("WHY")],
    [["a|b", 12.345, 1234, "x"], ["longer name", None, 7, ""], ["c", "n/a", None, None]],
    title="Scores",
    note="higher is better",
)


def test_plain_text_is_aligned() -> None:
    assert TABLE.plain() == (
        "Scores\n"
        "NAME         SCORE      N  WHY\n"
        "a|b           12.3  1,234  x\n"
        "longer name             7\n"
        "c              n/a\n"
        "higher is better\n"
    )


def test_markdown_escapes_what_would_break_a_row() -> None:
    assert TABLE.markdown() == (
        "**Scores**\n\n"
        "| NAME | SCORE | N | WHY |\n"
        "| --- | ---: | ---: | --- |\n"
        "| a\\|b | 12.3 | 1,234 | x |\n"
        "| longer name |  | 7 |  |\n"
        "| c | n/a |  |  |\n\n"
        "higher is better\n"
    )
    assert Table([Column("A")], [["two\nlines"]]).markdown().endswith("| two lines |\n")


def test_csv_has_numbers_in_full() -> None:
    rows = list(csv.reader(io.StringIO(TABLE.csv())))
    assert rows[0] == ["NAME", "SCORE", "N", "WHY"]
    assert rows[1] == ["a|b", "12.345", "1234", "x"]
    assert rows[3] == ["c", "n/a", "", ""]
    quoted = Table([Column("A")], [['say "hi", twice\nthen']]).csv()
    assert list(csv.reader(io.StringIO(quoted))) == [["A"], ['say "hi", twice\nthen']]


def test_the_widest_text_gives_way_and_numbers_do_not() -> None:
    table = Table(
        [Column("A"), number("B", "d"), Column("C")],
        [["a" * 30, 12345678901234567890, "c" * 20], ["x", 1, "y"]],
    )
    assert table.plain(200).splitlines()[1] == f"{'a' * 30}  12345678901234567890  {'c' * 20}"
    lines = table.plain(50).splitlines()
    assert lines[1] == f"{'a' * 12}…  12345678901234567890  {'c' * 12}…"
    assert max(map(len, lines)) == 50
    # Nothing is left to give: numbers stay whole and the table is wider.
    assert table.plain(20).splitlines()[1] == "aaaaa…  12345678901234567890  ccccc…"


def test_a_row_must_fit_its_columns() -> None:
    with pytest.raises(ValueError, match="2 cells in 1 columns"):
        Table([Column("A")], [["a", "b"]])
