"""What a recovery takes of a GPU: by numbers, and as counted on a device that stands in for one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from oracles.far_device import FAR, far_device
from transformers import AutoConfig, AutoModelForCausalLM

from subllm.errors import UsageError
from subllm.making.recovery import card
from subllm.making.recovery.again import Kept
from subllm.making.recovery.apart import Apart
from subllm.making.recovery.budget import Budget
from subllm.making.recovery.card import Room, fit_card, working
from subllm.making.recovery.distil import Fit, Recovery
from subllm.making.recovery.memory import needed
from subllm.making.recovery.recipe import Recipe
from subllm.making.recovery.task import Task
from subllm.models.arch.registry import spec_from_config
from subllm.models.arch.spec import ArchSpec
from subllm.models.weights.open import open_weights

from .conftest import LENGTH, masks_of, text

GB = 10**9
PLENTY = 100 * GB
CONTEXT = 0.4 * GB
"""Of a card's memory, before anything lies there."""
# Qwen2.5-Coder: hidden size, intermediate size, layers, heads, heads of keys, vocabulary.
SIZES = {
    "0.5b": (896, 4864, 24, 14, 2, 151_936),
    "1.5b": (1536, 8960, 28, 12, 2, 151_936),
    "7b": (3584, 18_944, 28, 28, 4, 152_064),
}
TOKENS = 20_000  # that occur in a recovery's text


def coder(size: str) -> ArchSpec:
    hidden, inner, layers, heads, kv_heads, vocabulary = SIZES[size]
    return spec_from_config(
        {
            "model_type": "qwen2",
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "vocab_size": vocabulary,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e6,
            "tie_word_embeddings": size != "7b",
        }
    )


def half(spec: ArchSpec) -> int:
    return spec.num_layers * spec.block_params() // 2


@pytest.mark.parametrize(("size", "memory"), [("0.5b", 4), ("1.5b", 8), ("7b", 24)])
@pytest.mark.parametrize("rounding", [0.0, 0.2])
def test_a_coder_learns_on_a_card_of_so_many_gigabytes(size, memory, rounding) -> None:
    """Half of its weights, with the default recipe: nothing of it is made less exact for that."""
    spec, free, recipe = coder(size), int(memory * GB - CONTEXT), Recipe(rounding=rounding)
    apart, need = fit_card(spec, recipe, 2, half(spec), TOKENS, Room(free, PLENTY))
    assert need.total <= free
    assert apart < spec.num_layers
    if apart:  # no more than it takes
        each = needed(spec, recipe, 2, half(spec), TOKENS).total
        each = (each - needed(spec, recipe, 2, 0, TOKENS).total) // spec.num_layers
        assert need.total + each > free


def test_a_card_with_room_for_all_has_all() -> None:
    spec = coder("0.5b")
    apart, need = fit_card(spec, Recipe(), 2, half(spec), TOKENS, Room(8 * GB, 0))
    assert apart == 0
    assert need.total == needed(spec, Recipe(), 2, half(spec), TOKENS).total + working(
        spec, Recipe()
    )


def test_what_does_not_fit_is_told_for_the_card_and_for_the_machine() -> None:
    spec = coder("7b")
    with pytest.raises(UsageError, match=r"needs 1\d\.\d GB of a GPU's memory.* --device cpu"):
        fit_card(spec, Recipe(), 2, half(spec), TOKENS, Room(8 * GB, PLENTY))
    with pytest.raises(UsageError, match=r"keeps \d\d\.\d GB in the processor's memory"):
        fit_card(spec, Recipe(), 2, half(spec), TOKENS, Room(23 * GB, 8 * GB))


@pytest.mark.parametrize("apart", [1, 2])
def test_what_lies_apart_learns_the_same(task, tmp_path: Path, apart: int) -> None:
    """Its step is the processor's own, whatever computes the rest."""
    given = task(rows=12, rounding=0.5, refit=2)
    given = replace(given, int4=dict.fromkeys(given.masks, "50%"))
    layers = given.reader.spec.num_layers
    budget = Budget(tokens=8 * 3 * LENGTH)
    here = Recovery(given, tmp_path / "here", compute="float32", fit=Fit(apart=0))
    here.run(budget)
    with far_device():
        far = Recovery(given, tmp_path / "far", device=FAR, compute="float32", fit=Fit(apart=apart))
        stop: list[object] = []
        far.run(budget, stopped=lambda: len(stop) >= 3, on_step=stop.append)
        away = [isinstance(tensor, Apart) for tensor in far._student.masters]
        assert sum(away) == apart * len(given.reader.spec.linears)
        # From the state on disk, with another share apart.
        again = Recovery(
            given, tmp_path / "far", device=FAR, compute="float32", fit=Fit(apart=layers)
        )
        again.run(budget)
        for tensor in again._student.masters:
            assert tensor.weight.device.type == "cpu" and tensor.shown.device == FAR
            assert np.array_equal(tensor.shown.cpu().numpy(), tensor.weight.numpy())
        for name in here.weights.names():
            got = again.weights.read(name)
            np.testing.assert_allclose(got, here.weights.read(name), rtol=0, atol=1e-3)


@pytest.mark.parametrize("apart", [0, 6])
@pytest.mark.parametrize("moments", ["bfloat16", "float32"])
def test_what_is_reckoned_is_what_lies_there(monkeypatch, tmp_path, apart, moments) -> None:
    """Bytes counted in two steps of a model large enough for its parts to be told apart."""
    config = AutoConfig.for_model(
        "qwen2", hidden_size=192, intermediate_size=1024, num_hidden_layers=6,
        num_attention_heads=6, num_key_value_heads=2, vocab_size=2048,
        max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    reader = open_weights(tmp_path / "base")
    spec, masks = reader.spec, masks_of(reader)
    recipe = Recipe(length=LENGTH, sequences=16, moments=moments)
    given = Task(reader, "base", masks, reader.read, text(32), text(4, 9), recipe)
    monkeypatch.setattr("subllm.making.recovery.memory._LIBRARIES", 0)
    monkeypatch.setattr(card, "_RESERVED", 0)
    learned = sum(int(mask.sum()) for mask in masks.values())
    each = needed(spec, recipe, 2, learned, 200).total - needed(spec, recipe, 2, 0, 200).total
    wanted = needed(spec, recipe, 2, learned, 200).total + working(spec, recipe)
    wanted -= apart * each // 6
    with far_device() as device:
        recovery = Recovery(given, tmp_path / "state", device=FAR, compute="bfloat16",
                            fit=Fit(Kept.INPUT, apart))  # fmt: skip
        recovery.run(Budget(tokens=2 * recipe.tokens))
    assert 0.5 * wanted < device.peak < wanted
