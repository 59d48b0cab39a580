"""Tokens chosen by parameters on the device are those of the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles.packed_matrices import DEVICE

from subllm.engine import sampler
from subllm.engine.backend import Draw
from subllm.engine.params import SamplingParams
from subllm.errors import LogitsError
from subllm.kernels.products.triton.operands import Bias, Penalties
from subllm.kernels.products.triton_ops import adjust, sample

PARAMS = [
    SamplingParams(),
    SamplingParams(temperature=1.0),
    SamplingParams(temperature=0.7, top_k=5),
    SamplingParams(temperature=1.3, top_p=0.8),
    SamplingParams(temperature=2.0, top_p=0.0),
    SamplingParams(temperature=1.0, min_p=0.2),
    SamplingParams(temperature=0.9, top_k=20, top_p=0.95, min_p=0.02),
    SamplingParams(temperature=1e-6),
    SamplingParams(temperature=1.0, top_k=10**6),
]


def drawn(logits: torch.Tensor, draws: list[Draw]) -> list[int]:
    def column(values: list[float], dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype)

    params = [draw.params for draw in draws]
    return sample(
        logits,
        column([p.temperature for p in params]),
        column([p.top_k for p in params], torch.int64),
        column([p.top_p for p in params]),
        column([p.min_p for p in params]),
        column([draw.uniform for draw in draws]),
    ).tolist()


def expected(logits: torch.Tensor, draw: Draw) -> int:
    try:
        return sampler.sample(logits.cpu().numpy(), draw)
    except LogitsError:
        return -1


@pytest.mark.parametrize("vocab", [1, 7, 500])
def test_draws(vocab: int) -> None:
    """Ties, NaN, infinities; every filter."""
    rng = np.random.default_rng(vocab)
    logits = torch.from_numpy(np.round(rng.standard_normal((len(PARAMS), vocab)) * 3, 1))
    logits = logits.to(DEVICE).float()
    logits[1, vocab // 2] = torch.nan
    logits[3, 0] = -torch.inf
    none = np.zeros(0, np.int32)
    for uniform in (0.0, *rng.random(12).tolist(), np.nextafter(1.0, 0.0)):
        draws = [Draw(params, none, 0, uniform) for params in PARAMS]
        wanted = [expected(row, draw) for row, draw in zip(logits, draws, strict=True)]
        assert drawn(logits, draws) == wanted


def test_nothing_to_draw_from() -> None:
    logits = torch.zeros(3, 4)
    logits[0] = torch.nan
    logits[1, 2] = torch.inf
    draw = Draw(SamplingParams(temperature=1.0), np.zeros(0, np.int32), 0, 0.5)
    assert drawn(logits, [draw] * 3) == [-1, -1, 2]


def test_a_draw_by_hand() -> None:
    """Weights 4, 2, 1, 1; of equal ones the lower id comes first."""
    logits = torch.log(torch.tensor([[1.0, 4.0, 2.0, 1.0]])).repeat(4, 1)
    params, none = SamplingParams(temperature=1.0), np.zeros(0, np.int32)
    draws = [Draw(params, none, 0, uniform) for uniform in (0.49, 0.51, 0.76, 0.9)]
    assert drawn(logits, draws) == [1, 2, 0, 3]


def test_adjusted() -> None:
    """Bias, all three penalties and what is allowed, each as the oracle has it."""
    vocab, rng = 70, np.random.default_rng(1)
    logits = rng.standard_normal((3, vocab)).astype(np.float32)
    words = rng.integers(0, 2**32, (3, 3), np.uint32)
    history = rng.integers(0, 9, (3, 12)).astype(np.int32)
    lengths, prompts = [12, 5, 0], [4, 5, 0]
    params = [
        SamplingParams(
            repetition_penalty=1.0 + 0.3 * row,
            presence_penalty=0.2 * row,
            frequency_penalty=0.1 * row,
            logit_bias=((3, 2.0), (69, -5.0))[: 2 - row // 2],
        )
        for row in range(3)
    ]
    got = torch.from_numpy(logits.copy()).to(DEVICE)
    adjust(
        got,
        bias=Bias(
            torch.tensor([[3, 69], [3, 69], [3, -1]]),
            torch.tensor([[2.0, -5.0], [2.0, -5.0], [2.0, 7.0]]),
        ),
        penalties=Penalties(
            history=torch.from_numpy(history).to(DEVICE),
            lengths=torch.tensor(lengths),
            prompt_lengths=torch.tensor(prompts),
            repetition=torch.tensor([p.repetition_penalty for p in params]),
            presence=torch.tensor([p.presence_penalty for p in params]),
            frequency=torch.tensor([p.frequency_penalty for p in params]),
        ),
        allowed=torch.from_numpy(words.view(np.int32)).to(DEVICE),
    )
    for row in range(3):
        seen = history[row, : lengths[row]]
        draw = Draw(params[row], seen, prompts[row], 0.0, allowed=words[row])
        np.testing.assert_allclose(
            got[row].cpu().numpy(), sampler.adjust(logits[row], draw), rtol=1e-6
        )


def test_fewer_words_than_tokens() -> None:
    """Tokens behind the last word are not allowed, as the oracle has it."""
    logits = torch.zeros(1, 40)
    adjust(logits, allowed=torch.tensor([[-1]], dtype=torch.int32))
    assert logits[0, :32].tolist() == [0.0] * 32
    assert logits[0, 32:].tolist() == [-torch.inf] * 8
