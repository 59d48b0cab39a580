"""MaskLLM: N:M masks that the whole model's loss teaches (Fang et al. 2024, "MaskLLM: Learnable
Semi-Structured Sparsity for Large Language Models", section 3). Weights stay as they are.

Every group of M weights has a logit for each of its C(M, N) masks. A mask is drawn softly, by
Gumbel softmax, so that the loss can be differentiated by the logits:

    p = softmax(scale * logits),  y = softmax((log p + gumbel noise) / temperature),
    soft mask = sum_i y_i * mask_i

Over training the temperature falls and the scale grows linearly: early draws are soft and vary,
late ones are nearly masks. The objective is the next-token loss minus `sparse` * sum (W * soft
mask)^2, which keeps large weights, and with them gradients, alive. At the end every group takes
the mask with the largest logit.

A prior, the mask M0 of another method, starts the logits nearer to it: noise of standard
deviation 0.01 plus 0.01 * `prior` * (M0 . mask_i - the mean of that over i).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any, ClassVar

import torch

from subllm.errors import PatternError
from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.pruning.method import InputStatistics, Need, Pruned
from subllm.making.pruning.parameter import Parameter

MOST_MASKS = 70
"""Masks that a group may choose from: those of 4:8."""
_NOISE = 0.01
_TEMPERATURE = (4.0, 0.05)
_SCALE = (100.0, 500.0)


def candidates(pattern: Pattern) -> torch.Tensor:
    """float32 [C(M, N), M]: the masks of a group, 1 where a weight is kept. Raises PatternError
    for a pattern that is not N:M or has more than MOST_MASKS."""
    if pattern.kind != "nm" or comb(pattern.m, pattern.n) > MOST_MASKS:
        masks = f"{comb(pattern.m, pattern.n):,}" if pattern.kind == "nm" else "no fixed set of"
        raise PatternError(
            f"maskllm learns which mask of N:M every group takes, of at most {MOST_MASKS}; "
            f"{pattern} has {masks} masks; use 2:4, 4:8 or another N:4 or N:8"
        )
    kept = list(combinations(range(pattern.m), pattern.n))
    found = torch.zeros(len(kept), pattern.m)
    for row, columns in zip(found, kept, strict=True):
        row[list(columns)] = 1
    return found


def first_logits(
    mask: torch.Tensor, masks: torch.Tensor, prior: float, generator: torch.Generator
) -> torch.Tensor:
    """float32 [rows, groups, candidates], on the CPU as the generator is, then on the mask's
    device. mask: the prior's, bool [rows, columns]; masks as `candidates` gives them."""
    rows, columns = mask.shape
    width = masks.shape[1]
    likeness = mask.reshape(rows, columns // width, width).float() @ masks.T
    likeness -= likeness.mean(-1, keepdim=True)
    noise = torch.randn(likeness.shape, generator=generator).to(mask.device)
    return _NOISE * (noise + prior * likeness)


def gumbel_noise(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """float32, on the CPU."""
    uniform = torch.rand(shape, generator=generator).clamp_(1e-9, 1 - 1e-7)
    return uniform.log_().neg_().log_().neg_()


def soft_mask(
    logits: torch.Tensor,
    masks: torch.Tensor,
    noise: torch.Tensor,
    scale: float,
    temperature: float,
) -> torch.Tensor:
    """[rows, columns] of values from 0 to 1, to differentiate by `logits`; noise has their
    shape."""
    log_p = torch.log_softmax(scale * logits, -1)
    share = torch.softmax((log_p + noise) / temperature, -1)
    return (share @ masks).flatten(1)


@dataclass(frozen=True)
class Training:
    """How logits are learned: `steps` of `batch` sequences, Adam at rate `lr`."""

    steps: int
    batch: int
    lr: float
    prior: float
    sparse: float

    def temperature(self, step: int) -> float:
        """At a step from 0 to steps - 1."""
        return self._between(_TEMPERATURE, step)

    def scale(self, step: int) -> float:
        """As `temperature`."""
        return self._between(_SCALE, step)

    def _between(self, ends: tuple[float, float], step: int) -> float:
        return ends[0] + (ends[1] - ends[0]) * step / max(self.steps - 1, 1)


class MaskLlm:
    name = "maskllm"
    needs = frozenset({Need.MASK_LOGITS})
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("steps", 500, 1, 1_000_000, "steps of training"),
        Parameter("batch", 8, 1, 4096, "sequences in a step"),
        Parameter("lr", 1e-3, 1e-7, 1.0, "learning rate of the logits"),
        Parameter("prior", 3.0, 0.0, 100.0, "strength of Wanda's mask as a prior"),
        Parameter("sparse", 1e-5, 0.0, 1.0, "weight of the regulariser on kept weights"),
    )

    def __init__(
        self,
        steps: int = 500,
        batch: int = 8,
        lr: float = 1e-3,
        prior: float = 3.0,
        sparse: float = 1e-5,
    ) -> None:
        self.training = Training(steps, batch, lr, prior, sparse)

    @property
    def params(self) -> Mapping[str, Any]:
        of = self.training
        return {
            "steps": of.steps, "batch": of.batch, "lr": of.lr, "prior": of.prior,
            "sparse": of.sparse,
        }  # fmt: skip

    def prune(self, weight: torch.Tensor, statistics: InputStatistics, pattern: Pattern) -> Pruned:
        """See `Method.prune`: every group's mask with the largest logit, the first of several."""
        pattern.check(*weight.shape)
        masks = candidates(pattern).to(weight.device)
        logits = statistics[Need.MASK_LOGITS].to(weight.device)
        best = logits.argmax(-1)
        return Pruned(masks[best].flatten(1).bool())
