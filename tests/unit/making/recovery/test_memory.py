from __future__ import annotations

import math
from dataclasses import replace

import pytest

from subllm.errors import UsageError
from subllm.making.recovery import eight_bit
from subllm.making.recovery.again import Kept
from subllm.making.recovery.compute import choose_compute
from subllm.making.recovery.memory import Need, choose_kept, fitting, needed
from subllm.making.recovery.recipe import Recipe
from subllm.models.arch.spec import ArchSpec

GB = 10**9
SPEC = ArchSpec(  # of Qwen2.5-Coder 0.5B
    family="qwen2", hidden_size=896, intermediate_size=4864, num_layers=24, num_heads=14,
    num_kv_heads=2, head_dim=64, vocab_size=151_936, context_length=32_768,
)  # fmt: skip
LEARNED = SPEC.num_layers * SPEC.block_params() // 2


def test_a_half_billion_weights_learn_in_four_gigabytes() -> None:
    need = needed(SPEC, Recipe(), 2, LEARNED, 10_000)
    assert 2.9 * GB < need.total < 3.3 * GB
    assert need.total + GB < need.most < need.total + 1.5 * GB


def test_what_is_kept_in_more_bytes_needs_more() -> None:
    need = needed(SPEC, Recipe(), 2, LEARNED, 10_000).total
    assert needed(SPEC, Recipe(moments="float32"), 2, LEARNED, 10_000).total > need + 4 * LEARNED
    assert needed(SPEC, Recipe(), 4, LEARNED, 10_000).total > need + GB
    beside = needed(SPEC, Recipe(top_k=0), 2, LEARNED, 10_000).total
    assert beside > need + 2 * SPEC.num_layers * SPEC.block_params()


def test_moments_take_eight_bits_where_memory_asks_for_it(monkeypatch) -> None:
    def need(recipe: Recipe) -> Need:
        return needed(SPEC, recipe, 2, LEARNED, 10_000)

    wide, narrow = need(Recipe()), need(Recipe(moments="int8"))
    assert narrow.total == pytest.approx(wide.total - 1.05 * LEARNED * (4 - 2.03), rel=1e-3)
    monkeypatch.setattr(eight_bit, "available", lambda: True)
    assert fitting(Recipe(), need, wide.total) == Recipe()
    less = Recipe(moments="int8")
    assert fitting(Recipe(), need, wide.total - 1) == less
    assert fitting(Recipe(), need, narrow.total - 1) == Recipe(), "then nothing helps"
    monkeypatch.setattr(eight_bit, "available", lambda: False)
    assert fitting(Recipe(), need, wide.total - 1) == Recipe()
    with pytest.raises(UsageError, match=r"with bitsandbytes it would fit: pip .*subllm\[gpu\]"):
        choose_kept(wide, wide.total - 1, wide, narrow)


def test_less_is_kept_the_less_memory_there_is() -> None:
    need = Need(4 * GB, narrow=GB // 8, products=GB // 4, layers=4)
    assert need.most == int(5.5 * GB)
    products, narrow, inputs = Kept.PRODUCTS, Kept.NARROW, Kept.INPUT

    def chosen(share: float) -> tuple[Kept, ...]:
        return choose_kept(need, math.ceil(share / 0.75), need)

    assert chosen(5.5 * GB) == (products,) * 4
    assert chosen(5.5 * GB - 4) == (narrow, *[products] * 3)
    assert chosen(4.5 * GB) == (narrow,) * 4
    assert chosen(4.5 * GB - 4) == (inputs, *[narrow] * 3)
    assert chosen(4.0 * GB) == chosen(3.0 * GB) == (inputs,) * 4
    assert need.taken(chosen(4.5 * GB - 4)) == need.total + 3 * need.narrow
    assert need.taken(chosen(5.5 * GB)) == need.most


def test_too_little_memory_is_told_with_what_would_fit() -> None:
    need = Need(4 * GB, GB // 8, GB // 4, 4)
    with pytest.raises(UsageError, match=r"needs 4\.0 GB of memory, 1\.0 GB more .* smaller model"):
        choose_kept(need, 3 * GB, replace(need, total=int(3.5 * GB)))
    with pytest.raises(UsageError, match="with one sequence a step it would fit"):
        choose_kept(need, 3 * GB, replace(need, total=2 * GB))


def test_compute_is_chosen_by_name_or_measured() -> None:
    import torch

    cpu = torch.device("cpu")
    assert choose_compute("float32", SPEC, cpu) == "float32"
    assert choose_compute("auto", SPEC, torch.device("cuda")) == "bfloat16"
    assert choose_compute("auto", SPEC, cpu) in ("bfloat16", "float32")
    with pytest.raises(UsageError, match="int8"):
        choose_compute("int8", SPEC, cpu)
