"""A recovery on a device that is not the processor: where every tensor lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from oracles.far_device import FAR, far_device

from subllm.making.recovery.again import Kept
from subllm.making.recovery.budget import Budget
from subllm.making.recovery.distil import Fit, Recovery

from .conftest import LENGTH

BUDGET = Budget(tokens=4 * 3 * LENGTH)


@pytest.mark.parametrize(
    ("recipe", "kept"),
    [
        ({}, Kept.PRODUCTS),
        (
            {"top_k": 16, "hidden": 0.1, "next_token": 0.3, "vectors": True, "dense": True},
            Kept.INPUT,
        ),
        ({"moments": "int8"}, Kept.NARROW),
        ({"next_token": 0.5, "rounding": 0.5, "refit": 2}, Kept.PRODUCTS),
    ],
    ids=["plain", "all", "int8", "rounded"],
)
def test_all_of_a_recovery_lies_on_its_device(
    task, tmp_path: Path, recipe: Mapping[str, object], kept: Kept
) -> None:
    """Step by step that of the processor, up to rounding: the core's fused step and its
    pieces are the processor's alone."""
    if recipe.get("moments") == "int8":
        pytest.importorskip("bitsandbytes")
    given = task(rows=12, eps=1e-3, **recipe)
    if recipe.get("rounding"):
        given = replace(given, int4=dict.fromkeys(given.masks, "50%"))
    here = Recovery(given, tmp_path / "here", compute="float32", fit=Fit(kept))
    wanted = here.run(BUDGET)
    with far_device():
        far = Recovery(given, tmp_path / "far", device=FAR, compute="float32", fit=Fit(kept))
        found = far.run(BUDGET)
        for name in here.weights.names():
            got = far.weights.read(name)
            np.testing.assert_allclose(got, here.weights.read(name), rtol=0, atol=1e-4)
    for one, other in zip(found.curve, wanted.curve, strict=True):
        assert one.heldout_kl == pytest.approx(other.heldout_kl, rel=1e-2)
