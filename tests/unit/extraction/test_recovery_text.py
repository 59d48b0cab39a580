"""What a recovery learns from where nobody says."""

from __future__ import annotations

from pathlib import Path

import pytest

from subllm.calibration import packs
from subllm.extraction.recovery_text import default_source


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"DATA": {"python": 400, "java": 400, "general": 400}}
    sizes["CODE"] = {"python": 4000, "java": 1000}
    sizes["WRITTEN"] = {"python": 800, "java": 100}
    for kind, files in sizes.items():
        directory = tmp_path / kind
        directory.mkdir()
        monkeypatch.setattr(packs, kind, directory)
        for name, size in files.items():
            (directory / f"{name}.jsonl.xz").write_bytes(bytes(size))


def _shares(language: str) -> dict[str, float]:
    parts = (part.split("=") for part in default_source(language).split(","))
    return {source: float(share) for source, share in parts}


@pytest.mark.usefixtures("shipped")
def test_kinds_of_text_share_alike_and_none_comes_more_often_than_the_pack() -> None:
    third = pytest.approx(1 / 3, abs=1e-5)
    assert _shares("python") == {
        "pack:python": third,
        "code:python": third,
        "written:python": third,
    }
    # 100 bytes beside 400: a quarter of a share.
    whole = pytest.approx(1 / 2.25, abs=1e-5)
    part = pytest.approx(0.25 / 2.25, abs=1e-5)
    assert _shares("java") == {"pack:java": whole, "code:java": whole, "written:java": part}


@pytest.mark.usefixtures("shipped")
def test_for_general_languages_share_by_size() -> None:
    assert _shares("general") == {
        "pack:general": pytest.approx(1 / 3, abs=1e-5),
        "code:python": pytest.approx(0.8 / 3, abs=1e-5),
        "code:java": pytest.approx(0.2 / 3, abs=1e-5),
        "written:python": pytest.approx(8 / 27, abs=1e-5),
        "written:java": pytest.approx(1 / 27, abs=1e-5),
    }


@pytest.mark.usefixtures("shipped")
def test_a_language_without_a_pack_has_none() -> None:
    assert default_source("go") == ""
