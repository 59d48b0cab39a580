"""Blocks that stream through a GPU: what that takes, by numbers; and how they get there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from subllm.engine.placement import Card
from subllm.errors import UsageError
from subllm.making.extraction.blocks.ahead import ReadAhead
from subllm.making.extraction.blocks.tap import column_square_sums, sums_at_once
from subllm.making.extraction.blocks.torch_blocks import TorchBlocks
from subllm.making.extraction.card import (
    card_bytes,
    card_for,
    fits_by_block,
    fitting_batch,
    too_small,
)
from subllm.making.extraction.prepare import open_base
from subllm.making.pruning.method import Need
from subllm.models.arch.registry import spec_from_config
from subllm.models.arch.spec import ArchSpec
from subllm.models.store.store import Store

GB = 10**9
SQUARES = frozenset({Need.SQUARE_SUMS})


def seven() -> ArchSpec:
    """Of Qwen2.5-Coder-7B."""
    return spec_from_config(
        {
            "model_type": "qwen2",
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e6,
            "tie_word_embeddings": False,
        }
    )


def card(free: float, index: int = 0) -> Card:
    return Card(index, "NVIDIA Test", int(24 * GB), int(free * GB))


def test_seven_billion_weights_stream_through_four_gigabytes() -> None:
    needed = card_bytes(seven(), 2, 2048, 32 * 512, SQUARES, 2)
    assert 2 * GB < needed < 4 * GB
    assert needed > 2 * seven().block_params() + 8 * 18944 * 3584


def test_what_adds_to_it() -> None:
    spec = seven()
    plain = card_bytes(spec, 1, 2048, 0, SQUARES, 2)
    assert card_bytes(spec, 4, 2048, 0, SQUARES, 2) > plain
    assert card_bytes(spec, 1, 2048, 0, SQUARES, 4) > plain
    with_all = card_bytes(spec, 1, 2048, 0, SQUARES | {Need.FULL_HESSIAN}, 2)
    assert with_all - plain > 4 * 18944**2
    wide = replace(spec, vocab_size=2_000_000)  # the embedding is the largest then
    assert card_bytes(wide, 1, 2048, 0, SQUARES, 2) > 2 * 2_000_000 * 3584
    assert fits_by_block(SQUARES)
    assert not fits_by_block(frozenset({Need.GRADIENTS}))


def test_which_card_and_how_many_sequences() -> None:
    cards = [card(3, 0), card(9, 1), card(9, 2)]
    found = card_for(cards, 8 * GB)
    assert found is not None and found.index == 1
    assert card_for(cards, 10 * GB) is None
    assert card_for([], 0) is None
    assert fitting_batch(8, lambda batch: batch * GB, 5 * GB) == 4
    assert fitting_batch(8, lambda batch: batch * GB, 8 * GB) == 8
    assert fitting_batch(2, lambda batch: batch * GB, 0) == 1
    error = too_small(cards, 10 * GB)
    assert isinstance(error, UsageError)
    assert "10.0 GB of a GPU's memory" in str(error)
    assert "cuda:1 (NVIDIA Test, 9.0 GB of 24.0 GB free)" in str(error)


def test_square_sums_at_once() -> None:
    rows = torch.randn(1000, 37).bfloat16()
    found = sums_at_once(rows, torch.float32)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, column_square_sums(rows), rtol=1e-6, atol=0)
    torch.testing.assert_close(found, rows.double().square().sum(0), rtol=1e-5, atol=0)


def test_the_next_block_is_read_while_one_is_at_work() -> None:
    read: list[str] = []
    free = threading.Event()

    def slow(name: str) -> np.ndarray:
        if name != "0.a":
            assert free.wait(10)
        read.append(name)
        if name == "2.a":
            raise OSError("gone")
        return np.array([float(name[0])], np.float32)

    ahead = ReadAhead(slow, lambda layer: [f"{layer}.a"], 3)
    assert ahead.block(0)["0.a"] == 0  # while the next one is not read yet
    free.set()
    assert ahead.block(1)["1.a"] == 1
    assert read[:2] == ["0.a", "1.a"]
    with pytest.raises(OSError, match="gone"):
        ahead.block(2)
    assert ahead.block(0)["0.a"] == 0  # out of turn


def test_blocks_read_ahead_are_the_same(
    store: Store, add_base: Callable[[str], PreTrainedModel]
) -> None:
    add_base("qwen2")
    name = next(iter(store.names()))
    plain, ahead = (
        TorchBlocks(open_base(store, name)[2], torch.device("cpu"), torch.float32) for _ in range(2)
    )
    ahead._ahead = ahead._reading_ahead()
    for layer in (0, 1, 2, 1):
        for blocks in (plain, ahead):
            blocks.load(layer)
        for linear in plain.spec.linears:
            assert torch.equal(plain.weight(layer, linear.name), ahead.weight(layer, linear.name))
        for blocks in (plain, ahead):
            blocks.unload(layer)
