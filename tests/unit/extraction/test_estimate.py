"""What an extraction is said to take before it starts."""

from __future__ import annotations

import pytest

from subllm.extraction.estimate import estimate, hessian_flops, product_flops
from subllm.extraction.prepare import open_base
from subllm.pruning.method import Need

from .conftest import BASE

FULL = frozenset({Need.FULL_HESSIAN})


def test_hessians_are_reckoned_in_float32(store, add_base) -> None:
    add_base("llama")
    spec = open_base(store, BASE)[2].spec
    asked = []

    def rates(compute: str) -> float:
        asked.append(compute)
        return {"bfloat16": 2e6, "float32": 1e6}[compute]

    about = estimate(spec, 4, 32, 0, FULL, "bfloat16", "bf16", rates)
    products, hessians = product_flops(spec, 128, 0, True), hessian_flops(spec, 128, full=True)
    weights = 2e-8 * spec.num_layers * spec.block_params()
    assert about.flops == products + hessians
    assert about.seconds == pytest.approx(
        1.5 * (products / 2e6 + hessians / 1e6) + weights + 3, rel=1e-9
    )
    squares = frozenset({Need.SQUARE_SUMS})
    asked.clear()
    assert estimate(spec, 4, 32, 0, squares, "bfloat16", "int8", rates).flops == products
    assert asked == ["bfloat16"]
    slabs = hessian_flops(spec, 128, full=False)
    assert estimate(spec, 4, 32, 0, squares, "bfloat16", "int4", rates).flops == products + slabs


def test_full_hessians_by_hand(store, add_base) -> None:
    add_base("llama")
    spec = open_base(store, BASE)[2].spec
    narrow = {linear.group: linear.in_features for linear in spec.linears}
    assert max(narrow.values()) < 512  # one slab, so both kinds collect the same
    solving = sum(
        linear.in_features**2 * (2 / 3 * linear.in_features + linear.out_features / 2)
        for linear in spec.linears
    )
    squares = sum(columns**2 for columns in narrow.values())
    assert hessian_flops(spec, 10, full=False) == 2 * 10 * spec.num_layers * squares
    assert hessian_flops(spec, 10, full=True) == pytest.approx(
        2 * spec.num_layers * (10 * squares + solving)
    )
