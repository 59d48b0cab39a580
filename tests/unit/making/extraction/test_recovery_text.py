"""What a recovery learns from where nobody says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracles.tiny_models import FILL, MARK, tokenizer

from subllm.errors import CalibrationError
from subllm.making.calibration import packs
from subllm.making.calibration.load import TextOrigin
from subllm.making.extraction import recovery_text
from subllm.making.extraction.recovery_text import (
    Mixed,
    RecoveryData,
    default_source,
    load_recovery_data,
)
from subllm.making.recovery.recipe import Recipe
from subllm.making.recovery.rows import with_filled
from subllm.models.catalog.loader import Catalog
from subllm.models.catalog.prompt import FimSpec, PromptSpec

PLAIN = PromptSpec(context_length=256)
FIM = PromptSpec(
    fim=FimSpec(prefix="<|mark|>", suffix="<|fill|>", middle="<|mark|><|fill|>"),
    context_length=256,
)


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


def _data(prompt: PromptSpec, *, holes: bool) -> RecoveryData:
    return load_recovery_data(
        "pack:python", Recipe(length=64), TextOrigin("python", Catalog({}, {})), tokenizer(),
        prompt, 0, Mixed(holes=holes),
    )  # fmt: skip


def test_holes_come_more_often_in_rows_of_their_own_and_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery_text, "LEARNED_TOKENS", 100_000)
    plain, more = _data(FIM, holes=False), _data(FIM, holes=True)
    for before, after in ((plain.learned, more.learned), (plain.heldout, more.heldout)):
        assert after.filled is not None
        holed = after.filled.any(1)
        assert holed.any() and not holed.all()
        # The first rows have them, but for those in which a long document goes on.
        last = int(np.flatnonzero(holed)[-1])
        assert not holed[last + 1 :].any() and last < after.rows - 1
        filled = before.filled
        assert filled is not None
        assert np.array_equal(filled, with_filled(before, (MARK, FILL)).filled)
        assert after.filled.sum() > 1.3 * filled.sum()


def test_a_family_without_markers_has_no_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery_text, "LEARNED_TOKENS", 10_000)
    with pytest.raises(CalibrationError, match="pack:python has no holes to fill for this model"):
        _data(PLAIN, holes=True)
    assert _data(PLAIN, holes=False).learned.filled is None
