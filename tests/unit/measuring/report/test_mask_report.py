"""The files of a comparison, and that they can be made again from its records."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

import pytest

from subllm.errors import MissingExtraError, UsageError
from subllm.measuring.report.masks.records import read_comparison
from subllm.measuring.report.masks.report import markdown, write_report
from subllm.measuring.report.masks.windows import read_windows

from .samples import five, two, window

FILES = [
    "masks.jsonl", "masks.md", "masks.csv", "masks-models.png", "masks-types.png",
    "masks-layers.png", "overlay.jsonl", "overlay.html",
]  # fmt: skip


def without_ids(page: bytes) -> str:
    """treescope gives what it draws a new id every time."""

    return re.sub(r"[0-9a-f]{32}", "", page.decode())


def test_everything_can_be_made_again_from_the_records(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "first", tmp_path / "second"
    written = write_report(two(), [window()], first)
    assert [path.relative_to(first).name for path in written] == FILES
    assert sorted(path.name for path in first.iterdir()) == sorted(FILES)
    comparison = read_comparison((first / "masks.jsonl").read_text())
    windows = read_windows((first / "overlay.jsonl").read_text())
    write_report(comparison, windows, second)
    for name in FILES:
        ours, again = (first / name).read_bytes(), (second / name).read_bytes()
        if name == "overlay.html":
            assert without_ids(ours) == without_ids(again)
        else:
            assert ours == again


def test_the_page_has_all_tables() -> None:
    page = markdown(five())
    assert page.startswith("# Masks of tiny:1m\n")
    assert page.count("\n**") == 1 + 1 + 1 + 10  # models, distances, bytes, each pair by layer
    assert "| python / java | 0.667 | 0.667 |" in page


def test_without_windows_there_is_no_overlay(tmp_path: Path) -> None:
    assert [path.name for path in write_report(two(), [], tmp_path)] == FILES[:6]
    with (tmp_path / "masks.csv").open() as lines:
        assert len(list(csv.DictReader(lines))) == 4


def test_a_failure_leaves_older_files_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(two(), [window()], tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setitem(sys.modules, "treescope", None)
    with pytest.raises(MissingExtraError):
        write_report(five(), [window()], tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_directory_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="choose another directory"):
        write_report(two(), [], tmp_path / "file" / "below")
