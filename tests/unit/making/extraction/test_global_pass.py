"""Gradients block by block against those of the whole model at once, and what comes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from subllm.errors import UsageError
from subllm.kernels.sparsity.packing import unpack_mask
from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.extraction import memory
from subllm.making.extraction.blocks import head_loss
from subllm.making.extraction.blocks.torch_blocks import TorchBlocks
from subllm.making.extraction.estimate import Reading, estimate
from subllm.making.extraction.extract import extract
from subllm.making.extraction.global_pass import gradients
from subllm.making.extraction.memory import require_memory
from subllm.making.extraction.prepare import ExtractOptions, open_base
from subllm.making.pruning.choose import choose_by_sorting
from subllm.making.pruning.dpruner import scores
from subllm.making.pruning.method import Need
from subllm.making.pruning.registry import get_method
from subllm.models.store.model_files import open_model
from subllm.progress import NullProgress

from .conftest import BASE, prepared_for, tokens_for
from .tiny import FAMILIES


def whole_model_gradients(model: PreTrainedModel, tokens: np.ndarray) -> dict[str, torch.Tensor]:
    """[2, out, in] for every matrix of the blocks, by one backward pass per sequence."""
    matrices = {n: p for n, p in model.named_parameters() if "layers" in n and p.ndim == 2}
    found = {name: torch.zeros(2, *p.shape, dtype=p.dtype) for name, p in matrices.items()}
    for sequence in torch.from_numpy(tokens.astype(np.int64)):
        model.zero_grad()
        logits = model(sequence[None]).logits[0, :-1]
        torch.nn.functional.cross_entropy(logits, sequence[1:], reduction="sum").backward()
        for name, parameter in matrices.items():
            found[name][0] += parameter.grad
            found[name][1] += parameter.grad.square()
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_the_whole_model(store, add_base, monkeypatch, family) -> None:
    monkeypatch.setattr(head_loss, "TOKENS", 10)  # several pieces, the last one short
    model = add_base(family).double()
    blocks = TorchBlocks(open_base(store, BASE)[2], torch.device("cpu"), torch.float64)
    texts = {
        Need.GRADIENTS: tokens_for(3, 24),
        Need.GENERAL_GRADIENTS: tokens_for(2, 16, seed=1),
    }
    expected = {need: whole_model_gradients(model, tokens) for need, tokens in texts.items()}
    layers = []
    for layer, statistics in gradients(blocks, texts, NullProgress()):
        layers.append(layer)
        assert set(statistics) == {linear.name for linear in blocks.spec.linears}
        for name, of in statistics.items():
            for need in texts:
                want = expected[need][f"model.layers.{layer}.{name}.weight"]
                assert torch.allclose(of[need], want, rtol=1e-6, atol=1e-12), (layer, name)
    assert layers == [2, 1, 0]


def test_gradients_in_bfloat16_point_the_same_way(store, add_base) -> None:
    model = add_base("qwen2")
    blocks = TorchBlocks(open_base(store, BASE)[2], torch.device("cpu"), torch.bfloat16)
    tokens = tokens_for(4, 24)
    expected = whole_model_gradients(model, tokens)
    for layer, statistics in gradients(blocks, {Need.GRADIENTS: tokens}, NullProgress()):
        for name, of in statistics.items():
            found = of[Need.GRADIENTS]
            assert found.dtype == torch.float32
            want = expected[f"model.layers.{layer}.{name}.weight"]
            for one, other in zip(found, want, strict=True):
                cosine = torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), 0)
                assert cosine > 0.98, (layer, name)


@pytest.mark.parametrize("pattern", ["50%", "2:4"])
def test_dpruner_masks_are_those_of_the_whole_model(store, add_base, pattern) -> None:
    model = add_base("qwen2").double()
    options = ExtractOptions(
        "python", method="dpruner", method_params={"general": 2}, pattern=pattern,
        values="bf16", compute="float64",
    )  # fmt: skip
    prepared = prepared_for(store, options)
    assert prepared.tokens is not None and prepared.general is not None
    report = extract(store, prepared, NullProgress())
    domain = whole_model_gradients(model, prepared.tokens)
    general = whole_model_gradients(model, prepared.general)
    with open_model(store, report.name) as files:
        for name, of in domain.items():
            weight = model.get_parameter(name).detach()
            wanted = choose_by_sorting(
                scores(weight, of, general[name], 2.0), Pattern.parse(pattern)
            )
            assert np.array_equal(unpack_mask(files.tensor(name)), wanted.numpy()), name
    assert report.manifest.method.params["general"] == 2


def test_a_second_run_of_a_stopped_extraction_differentiates_nothing_again(
    store, add_base, monkeypatch
) -> None:
    add_base("llama")
    options = ExtractOptions("python", method="dpruner", pattern="2:4", compute="float32")

    class Stopped(Exception):
        pass

    def stop(layer: int, masks: object) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        extract(store, prepared_for(store, options), NullProgress(), on_block=stop)
    monkeypatch.setattr("subllm.making.extraction.global_pass.gradients", None)
    report = extract(store, prepared_for(store, options), NullProgress())
    assert report.manifest.density == 0.5


@pytest.mark.parametrize(("values", "layers"), [("int4", [0, 1, 2]), ("int8", [])])
def test_calibration_runs_through_pruned_blocks_where_packing_uses_it(
    store, add_base, monkeypatch, values, layers
) -> None:
    add_base("llama")
    seen: list[int] = []
    collect = TorchBlocks.collect

    def noted(self, layer, *others):
        seen.append(layer)
        return collect(self, layer, *others)

    monkeypatch.setattr(TorchBlocks, "collect", noted)
    options = ExtractOptions("python", method="dpruner", values=values, compute="float32")
    assert extract(store, prepared_for(store, options), NullProgress()).manifest.density == 0.5
    assert seen == layers


def test_the_cost_counts_both_texts(store, add_base) -> None:
    add_base("llama")
    spec = open_base(store, BASE)[2].spec
    needs = get_method("dpruner").needs
    once, twice = (
        estimate(spec, Reading(samples, 128), needs, "float32", "int8", lambda _: 1e9)
        for samples in (64, 128)
    )
    tokens = 64 * 128
    block, head = spec.num_layers * spec.block_params(), spec.vocab_size * spec.hidden_size
    assert once.flops == 2 * 2 * tokens * (4 * block + 2 * head)
    kept = 2 * (spec.num_layers + 1) * tokens * spec.hidden_size * 4
    assert twice.peak_memory_bytes - once.peak_memory_bytes >= kept


def test_too_little_memory_is_said_before_the_start(monkeypatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 3_000_000_000)
    require_memory("dpruner", 8, lambda samples: 10**9 + samples * 10**8)
    with pytest.raises(
        UsageError,
        match=r"dpruner takes about 4\.2 GB .* 1\.2 GB more .* samples = 16 in .*",
    ):
        require_memory("dpruner", 32, lambda samples: 10**9 + samples * 10**8)
    with pytest.raises(UsageError, match="smaller base"):
        require_memory("dpruner", 32, lambda samples: 4 * 10**9)
