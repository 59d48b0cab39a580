"""Recovery curves as table and picture."""

from __future__ import annotations

import pytest

from subllm.measuring.report.curve import Curve, Solved, picture, table
from subllm.models.store.manifest import CurveRecord

POINTS = [
    CurveRecord(tokens=0, seconds=6, loss=None, heldout_kl=0.19, agreement=0.854),
    CurveRecord(tokens=100_000, seconds=360, loss=0.21, heldout_kl=0.13, agreement=0.881),
]
CURVE = Curve("python", POINTS, [Solved(100_000, 0.3, 0.23, 0.37)], dense=0.45)


def test_problems_stand_beside_the_point_that_they_were_run_at() -> None:
    rows = table([CURVE]).rows
    assert [row[:3] for row in rows] == [["python", 0, 0.1], ["python", 100_000, 6.0]]
    assert rows[0][6:] == [None, None, None]
    assert rows[1][6] == pytest.approx(30.0) and rows[1][7] == "23-37"
    assert rows[1][8] == pytest.approx(66.7, abs=0.1)


def test_a_picture_with_and_without_problems() -> None:
    pytest.importorskip("matplotlib")
    whole = picture([CURVE], "0.5B")
    plain = picture([Curve("python", POINTS)], "0.5B", "a note")
    assert whole.startswith(b"\x89PNG") and plain.startswith(b"\x89PNG") and whole != plain
    assert whole == picture([CURVE], "0.5B")
