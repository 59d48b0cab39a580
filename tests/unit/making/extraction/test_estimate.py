"""What an extraction is said to take before it starts."""

from __future__ import annotations

import pytest

from subllm.making.extraction.estimate import Reading, estimate, hessian_flops, product_flops
from subllm.making.extraction.prepare import open_base
from subllm.making.pruning.method import Need

from .conftest import BASE

FULL = frozenset({Need.FULL_HESSIAN})


def test_hessians_are_reckoned_in_float32(store, add_base) -> None:
    add_base("llama")
    spec = open_base(store, BASE)[2].spec
    asked = []

    def rates(compute: str) -> float:
        asked.append(compute)
        return {"bfloat16": 2e6, "float32": 1e6}[compute]

    reading = Reading(4, 32)
    about = estimate(spec, reading, FULL, "bfloat16", "bf16", rates)
    products, hessians = product_flops(spec, 128, 0, True), hessian_flops(spec, 128, full=True)
    assert about.flops == products + hessians
    assert about.seconds == pytest.approx(1.5 * (products / 2e6 + hessians / 1e6) + 3)
    squares = frozenset({Need.SQUARE_SUMS})
    asked.clear()
    assert estimate(spec, reading, squares, "bfloat16", "int8", rates).flops == products
    assert asked == ["bfloat16"]
    slabs = hessian_flops(spec, 128, full=False)
    assert estimate(spec, reading, squares, "bfloat16", "int4", rates).flops == products + slabs


def test_hessians_by_hand(store, add_base) -> None:
    """Three blocks of inputs of 64, 64, 64 and 96 columns, all within one slab."""
    add_base("llama")
    spec = open_base(store, BASE)[2].spec
    collected = 2 * 10 * 3 * (3 * 64**2 + 96**2)
    assert hessian_flops(spec, 10, full=False) == collected == 1_290_240
    # q and o; k and v; gate and up; down: in^2 (2/3 in + out/2).
    solving = 2 * 4096 * 224 / 3 + 2 * 4096 * 176 / 3 + 2 * 4096 * 272 / 3 + 9216 * 96
    assert solving == 2_719_744
    assert hessian_flops(spec, 10, full=True) == pytest.approx(collected + 6 * 2_719_744)
