"""Patterns by matrix."""

from __future__ import annotations

import pytest

from subllm.errors import PatternError
from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.pruning.allocation import Allocation

HALF, TEN, DENSE = map(Pattern.parse, ("8:16", "10:16", "dense"))


def test_a_uniform_allocation_is_its_pattern() -> None:
    uniform = Allocation(HALF)
    assert uniform.uniform and str(uniform) == "8:16" == uniform.identity()
    assert uniform.of("a") == HALF
    assert Allocation(HALF, {"a": HALF}) == uniform


def test_matrices_have_their_own_pattern() -> None:
    mixed = Allocation(HALF, {"b": DENSE, "a": TEN, "c": HALF})
    assert [mixed.of(name) for name in "abcd"] == [TEN, DENSE, HALF, HALF]
    assert not mixed.uniform
    assert mixed.identity() == {"default": "8:16", "tensors": {"a": "10:16", "b": "dense"}}
    assert Allocation.of_patterns({"a": TEN, "b": DENSE, "c": HALF, "d": HALF}) == mixed


def test_a_name_of_its_own_for_every_mixture() -> None:
    one, same = Allocation(HALF, {"a": TEN, "b": DENSE}), Allocation(HALF, {"b": DENSE, "a": TEN})
    other = Allocation(HALF, {"a": DENSE, "b": TEN})
    assert str(one) == str(same) != str(other)
    assert str(one).startswith("mixed-")


def test_what_does_not_fit_is_refused() -> None:
    shapes = {"a": (4, 32), "b": (4, 24)}
    Allocation(Pattern.parse("2:4"), {"a": HALF}).check(shapes)
    with pytest.raises(PatternError, match="24"):
        Allocation(HALF).check(shapes)
    with pytest.raises(PatternError, match="given for c, which the model does not have"):
        Allocation(Pattern.parse("2:4"), {"c": DENSE}).check(shapes)
