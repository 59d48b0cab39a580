"""Masks learned over a whole model: gradients against one graph of all of it, and what they
bring."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import functional_call

from subllm.errors import PatternError
from subllm.kernels.sparsity.packing import unpack_mask
from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.extraction.blocks.torch_blocks import TorchBlocks
from subllm.making.extraction.estimate import LearnedMasks, Reading, estimate
from subllm.making.extraction.extract import extract
from subllm.making.extraction.learn_masks import MaskTraining
from subllm.making.extraction.prepare import ExtractOptions, open_base
from subllm.making.pruning.allocation import Allocation
from subllm.making.pruning.maskllm import Training, candidates
from subllm.making.pruning.method import Need
from subllm.making.pruning.registry import get_method
from subllm.models.store.model_files import open_model
from subllm.progress import NullProgress

from .conftest import BASE, prepared_for, tokens_for

TWO_OF_FOUR = Pattern.parse("2:4")


def training_of(store, dtype, training, tokens, allocation=None) -> MaskTraining:
    blocks = TorchBlocks(open_base(store, BASE)[2], torch.device("cpu"), dtype)
    return MaskTraining(
        blocks, allocation or Allocation(TWO_OF_FOUR), training, tokens, NullProgress()
    )


def test_a_step_moves_logits_by_the_gradient_of_the_whole_model(store, add_base, monkeypatch):
    """Block by block, with blocks run again backward, the gradients are those of one graph."""
    model = add_base("qwen2").double()
    tokens = tokens_for(4, 16)
    made = training_of(store, torch.float64, Training(1, 2, 1e-3, 3.0, 0.01), tokens)
    gradients: dict[int, torch.Tensor] = {}
    plain = torch.optim.Adam.step

    def noted(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            gradients[id(parameter)] = parameter.grad.clone()
        return plain(self, closure)

    monkeypatch.setattr(torch.optim.Adam, "step", noted)
    made._start()
    before = {place: logits.detach().clone() for place, logits in made._logits.items()}
    optimisers = [torch.optim.Adam(made._of(layer).values(), lr=1e-3) for layer in range(3)]
    loss = made._step(0, tokens[:2], made._blocks.head_loss(), optimisers)
    found = {place: gradients[id(logits)] for place, logits in made._logits.items()}
    moved = made._logits
    assert all(not torch.equal(moved[place], logits) for place, logits in before.items())

    for place, logits in before.items():
        made._logits[place] = logits.requires_grad_()
    with torch.enable_grad():
        weights, kept = {}, torch.zeros((), dtype=torch.float64)
        for layer in range(3):
            for name, weight in made._drawn(0, layer).items():
                weights[f"model.layers.{layer}.{name}.weight"] = weight
                kept = kept + weight.square().sum()
        ids = torch.from_numpy(tokens[:2].astype(np.int64))
        logits_out = functional_call(model, weights, (ids,)).logits[:, :-1]
        whole = torch.nn.functional.cross_entropy(logits_out.flatten(0, 1), ids[:, 1:].flatten())
        expected = torch.autograd.grad(whole - 0.01 * kept, list(made._logits.values()))
    assert loss == pytest.approx(float(whole.detach()), rel=1e-9)
    for (place, gradient), want in zip(found.items(), expected, strict=True):
        assert torch.allclose(gradient, want, rtol=1e-4, atol=1e-9), place


def loss_of(model, masks, tokens) -> float:
    weights = {name: model.get_parameter(name) * mask for name, mask in masks.items()}
    ids = torch.from_numpy(tokens.astype(np.int64))
    with torch.no_grad():
        logits = functional_call(model, weights, (ids,)).logits[:, :-1]
        return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()))


def masks_of(store, name) -> dict[str, torch.Tensor]:
    with open_model(store, name) as files:
        return {
            entry.name: torch.from_numpy(unpack_mask(files.tensor(entry.name)))
            for entry in store.manifest(name).tensors
            if entry.blob == "own"
        }


def test_learned_masks_lower_the_loss_below_that_of_the_prior(store, add_base) -> None:
    """End to end, on text with something to learn: a few sequences, again and again."""
    model = add_base("llama")
    options = {"pattern": "2:4", "compute": "float32", "values": "bf16"}
    wanda = extract(
        store, prepared_for(store, ExtractOptions("python", tag="w", **options)), NullProgress()
    )
    learned = prepared_for(
        store,
        ExtractOptions(
            "python", method="maskllm", tag="m",
            method_params={"steps": 60, "batch": 6, "lr": 0.003}, **options,
        ),
    )  # fmt: skip
    report = extract(store, learned, NullProgress())
    assert report.manifest.density == 0.5
    assert report.manifest.method.params["steps"] == 60
    before, after = (
        loss_of(model, masks_of(store, made.name), learned.tokens) for made in (wanda, report)
    )
    assert after < before - 0.05
    for mask in masks_of(store, report.name).values():
        assert (mask.reshape(len(mask), -1, 4).sum(-1) == 2).all()


def test_dense_matrices_stay_dense_and_the_same_seed_learns_the_same(store, add_base) -> None:
    add_base("gemma3_text")
    tokens = tokens_for(4, 16)
    whole = open_base(store, BASE)[2].spec
    dense = {
        n: Pattern.parse("dense") for n in whole.matrices() if "layers.1." in n or "q_proj" in n
    }
    dense_but_some = Allocation(Pattern.parse("4:8"), dense)
    runs = []
    for _ in range(2):
        made = training_of(
            store, torch.float32, Training(2, 2, 1e-3, 3.0, 1e-5), tokens, dense_but_some
        )
        runs.append(list(made.run()))
        assert len(made.losses) == 2
    for (layer, one), (_, other) in zip(*runs, strict=True):
        for name, of in one.items():
            if layer == 1 or "q_proj" in name:
                assert not of.collected
            else:
                logits = of[Need.MASK_LOGITS]
                assert logits.shape[-1] == len(candidates(Pattern.parse("4:8")))
                assert torch.equal(logits, other[name][Need.MASK_LOGITS])


def test_a_pattern_that_cannot_be_learned_stops_before_any_work(store, add_base) -> None:
    add_base("llama")
    with pytest.raises(PatternError, match="12,870"):
        training_of(
            store, torch.float32, Training(2, 2, 1e-3, 3.0, 0.0), tokens_for(2, 8),
            Allocation(Pattern.parse("8:16")),
        )  # fmt: skip


def test_the_cost_grows_with_the_steps(store, add_base) -> None:
    add_base("llama")
    spec, needs = open_base(store, BASE)[2].spec, get_method("maskllm").needs
    few, many = (
        estimate(
            spec,
            Reading(4, 16, 0),
            needs,
            "float32",
            "int8",
            lambda _: 1e9,
            LearnedMasks(steps, 2, 1.5),
        )
        for steps in (10, 110)
    )
    block, head = spec.num_layers * spec.block_params(), spec.vocab_size * spec.hidden_size
    assert many.flops - few.flops == 100 * 2 * 16 * 2 * (4 * block + 2 * head)
    wide = estimate(
        spec, Reading(4, 16, 0), needs, "float32", "int8", lambda _: 1e9, LearnedMasks(10, 2, 8.75)
    )
    assert wide.peak_memory_bytes - few.peak_memory_bytes > 7 * 12 * block
