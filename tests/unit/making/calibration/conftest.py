"""Packs of the test's own in place of the shipped ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from subllm.making.calibration import packs

from .tiny import sample, write_pack


@pytest.fixture
def pack_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packs, python and general, of twelve train and four held-out samples each."""
    directory = tmp_path / "packs"
    directory.mkdir()
    (directory / "code").mkdir()
    (directory / "written").mkdir()
    monkeypatch.setattr(packs, "DATA", directory)
    monkeypatch.setattr(packs, "CODE", directory / "code")
    monkeypatch.setattr(packs, "WRITTEN", directory / "written")
    splits = ["train"] * 12 + ["heldout"] * 4
    write_pack(directory / "python.jsonl.xz", [sample(i, split) for i, split in enumerate(splits)])
    prose = [
        sample(i, split, answer="prose", tag=None, code=None, text=f"An essay, the {i}-th.")
        for i, split in enumerate(splits)
    ]
    write_pack(directory / "general.jsonl.xz", prose)
    return directory
