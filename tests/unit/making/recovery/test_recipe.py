from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import pytest

from subllm.errors import UsageError
from subllm.making.recovery.recipe import Recipe


def test_the_step_rises_then_falls_as_a_cosine_to_its_final_share() -> None:
    recipe = Recipe(lr=1.0, warmup=0.2, final=0.1)
    assert recipe.rate(0.0) == 0.0
    assert recipe.rate(0.1) == pytest.approx(0.5)
    assert recipe.rate(0.2) == pytest.approx(1.0)
    assert recipe.rate(0.6) == pytest.approx(0.55)
    assert recipe.rate(1.0) == pytest.approx(0.1)
    assert recipe.rate(1.3) == pytest.approx(0.1)


def test_without_warmup_it_starts_at_its_highest() -> None:
    assert Recipe(lr=2.0, warmup=0.0).rate(0.0) == 2.0


def test_who_is_near_takes_smaller_steps() -> None:
    recipe = Recipe(near=0.1)
    assert recipe.calm(0.025) == pytest.approx(0.25)
    assert recipe.calm(0.1) == recipe.calm(7.0) == recipe.calm(math.inf) == 1.0
    assert replace(recipe, next_token=0.5).calm(0.025) == 1.0


def test_with_rounding_each_part_has_a_cosine_of_its_own() -> None:
    recipe = Recipe(lr=1.0, warmup=0.2, final=0.1, rounding=0.4, rounding_lr=3.0)
    assert recipe.rate(0.2) == pytest.approx(1.0)
    assert recipe.rate(0.4) == pytest.approx(0.55)
    assert recipe.rate(0.6) == pytest.approx(0.1)
    assert recipe.rate(0.6, rounded=True) == pytest.approx(3.0)
    assert recipe.rate(0.8, rounded=True) == pytest.approx(3 * 0.55)
    assert recipe.rate(1.0, rounded=True) == pytest.approx(0.3)


def test_every_field_is_part_of_its_identity() -> None:
    identity = Recipe().identity()
    assert json.loads(json.dumps(identity)) == identity
    # A recipe without these terms is what it was before there were any.
    terms = {"next_token", "hidden", "rounding", "rounding_lr", "refit"}
    assert set(identity) == {field.name for field in fields(Recipe)} - terms
    assert replace(Recipe(), hidden=0.5).identity() == identity | {"hidden": 0.5}
    rounds = replace(Recipe(), rounding=0.2).identity()
    assert rounds == identity | {"rounding": 0.2, "rounding_lr": 1.5e-5, "refit": 0}
    assert replace(Recipe(), next_token=0.5).identity() == identity | {"next_token": 0.5}
    assert replace(Recipe(), ends=False).identity() | {"ends": True} == identity
    assert "ends" not in replace(Recipe(), ends=False).identity()


@pytest.mark.parametrize(
    "wrong",
    [{"near": 0.0}, {"lr": 0.0}, {"lr": math.nan}, {"clip": -1.0}, {"sequences": 0},
     {"warmup": 1.5}, {"betas": (0.9, 1.0)}, {"top_k": -1}, {"next_token": 1.0},
     {"next_token": -0.1}, {"next_token": math.nan},
     {"hidden": -1.0}, {"rounding": 1.1}, {"rounding_lr": 0.0}, {"refit": -1}],
)  # fmt: skip
def test_refuses_values_that_cannot_be_learned_with(wrong) -> None:
    with pytest.raises(UsageError):
        replace(Recipe(), **wrong)
