"""MaskLLM's pieces against cases by hand and slow loops."""

from __future__ import annotations

from itertools import combinations
from math import exp, log

import pytest
import torch

from subllm.errors import ExtractionError, PatternError, UsageError
from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.pruning.maskllm import (
    MaskLlm,
    Training,
    candidates,
    first_logits,
    gumbel_noise,
    soft_mask,
)
from subllm.making.pruning.method import InputStatistics, Need
from subllm.making.pruning.registry import get_method


@pytest.mark.parametrize(("pattern", "count"), [("2:4", 6), ("1:4", 4), ("4:8", 70), ("3:8", 56)])
def test_a_group_chooses_from_all_masks_of_its_pattern(pattern: str, count: int) -> None:
    parsed = Pattern.parse(pattern)
    masks = candidates(parsed)
    assert masks.shape == (count, parsed.m)
    assert (masks.sum(1) == parsed.n).all()
    assert len({tuple(row) for row in masks.tolist()}) == count


@pytest.mark.parametrize(
    ("pattern", "why"),
    [("8:16", "12,870 masks"), ("50%", "no fixed set"), ("16:32", "601,080,390")],
)
def test_other_patterns_are_refused(pattern: str, why: str) -> None:
    with pytest.raises(PatternError, match=f"{why}.* use 2:4, 4:8"):
        candidates(Pattern.parse(pattern))


def test_the_largest_logit_by_hand() -> None:
    # Masks of 2:4 in their order: 1100, 1010, 1001, 0110, 0101, 0011.
    logits = torch.zeros(1, 3, 6)
    logits[0, 0, 4] = 1
    logits[0, 1, 2] = 0.1
    statistics = InputStatistics(1, {Need.MASK_LOGITS: logits})
    pruned = MaskLlm().prune(torch.ones(1, 12), statistics, Pattern.parse("2:4"))
    assert pruned.weight is None
    assert pruned.mask.int().tolist() == [[0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 0]]


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "1:4"])
def test_every_group_keeps_exactly_as_many(pattern: str) -> None:
    parsed = Pattern.parse(pattern)
    generator = torch.Generator().manual_seed(1)
    count = len(candidates(parsed))
    logits = torch.randn(5, 48 // parsed.m, count, generator=generator)
    mask = (
        MaskLlm()
        .prune(torch.ones(5, 48), InputStatistics(1, {Need.MASK_LOGITS: logits}), parsed)
        .mask
    )
    assert (mask.reshape(5, -1, parsed.m).sum(-1) == parsed.n).all()


def test_a_prior_by_hand() -> None:
    # 1100 shares two weights with itself, none with 0011, one with the others: mean 1.
    prior = torch.tensor([[True, True, False, False]])
    masks = candidates(Pattern.parse("2:4"))
    plain, told = (
        first_logits(prior, masks, strength, torch.Generator().manual_seed(0))
        for strength in (0.0, 3.0)
    )
    assert torch.allclose((told - plain)[0, 0], 0.03 * torch.tensor([1.0, 0, 0, 0, 0, -1.0]))
    assert 0 < float(plain.abs().max()) < 0.05


def test_a_strong_prior_is_what_comes_out_untrained() -> None:
    generator = torch.Generator().manual_seed(2)
    masks = candidates(Pattern.parse("4:8"))
    prior = masks[torch.randint(70, (6, 4), generator=generator)].flatten(1).bool()
    logits = first_logits(prior, masks, 100.0, generator)
    statistics = InputStatistics(1, {Need.MASK_LOGITS: logits})
    found = MaskLlm().prune(torch.ones(6, 32), statistics, Pattern.parse("4:8")).mask
    assert torch.equal(found, prior)


def test_soft_masks_equal_their_formula() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 6, generator=generator) * 0.01
    noise = gumbel_noise((2, 3, 6), generator)
    scale, temperature = 150.0, 0.7
    found = soft_mask(logits, candidates(Pattern.parse("2:4")), noise, scale, temperature)
    for row in range(2):
        for group in range(3):
            pi = [scale * float(v) for v in logits[row, group]]
            p = [exp(v) / sum(map(exp, pi)) for v in pi]
            y = [exp((log(p[i]) + float(noise[row, group, i])) / temperature) for i in range(6)]
            want = [0.0] * 4
            for share, kept in zip(y, combinations(range(4), 2), strict=True):
                for column in kept:
                    want[column] += share / sum(y)
            assert found[row, group * 4 : group * 4 + 4].tolist() == pytest.approx(want, rel=1e-4)


def test_late_draws_are_nearly_masks_and_follow_the_logits() -> None:
    generator = torch.Generator().manual_seed(4)
    masks = candidates(Pattern.parse("2:4"))
    logits = torch.zeros(1000, 1, 6)
    logits[..., 3] = log(3) / 500  # three times as likely as each of the others
    noise = gumbel_noise(tuple(logits.shape), generator)
    drawn = soft_mask(logits, masks, noise, 500.0, 0.05)
    assert float((drawn - drawn.round()).abs().mean()) < 0.02
    share = float((drawn.round() == masks[3]).all(1).float().mean())
    assert share == pytest.approx(3 / 8, abs=0.05)


def test_schedules_run_from_end_to_end() -> None:
    training = Training(steps=11, batch=1, lr=1e-3, prior=3.0, sparse=0.0)
    assert (training.temperature(0), training.scale(0)) == (4.0, 100.0)
    assert training.temperature(10) == pytest.approx(0.05)
    assert training.scale(10) == pytest.approx(500.0)
    assert training.scale(5) == pytest.approx(300.0)
    assert Training(1, 1, 1e-3, 3.0, 0.0).temperature(0) == 4.0


def test_parameters_and_missing_logits() -> None:
    made = get_method("maskllm", {"steps": "20", "lr": "0.01"})
    assert made.params == {"steps": 20, "batch": 8, "lr": 0.01, "prior": 3.0, "sparse": 1e-5}
    with pytest.raises(UsageError, match="whole number from 1"):
        get_method("maskllm", {"steps": 0})
    with pytest.raises(ExtractionError, match="needs logits of masks"):
        made.prune(torch.ones(1, 4), InputStatistics(0), Pattern.parse("2:4"))
