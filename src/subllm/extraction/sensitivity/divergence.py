"""How far next-token distributions are from the dense model's, over the whole vocabulary."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from subllm.extraction.blocks.native_blocks import final_norm
from subllm.weights.reader import WeightReader

# Rows of the head multiplied at a time.
_HEAD_ROWS = 8192
_LARGEST = 80.0  # difference of logits whose exponential float32 still holds


@dataclass(frozen=True)
class Divergence:
    """kl: KL(dense || other) in nats, mean over positions; agreement: share of positions with
    the same most likely token."""

    kl: float
    agreement: float


def divergences(
    reader: WeightReader,
    dense: torch.Tensor,
    others: Sequence[torch.Tensor],
    device: torch.device,
    dtype: torch.dtype,
) -> list[Divergence]:
    """Of each of `others` from `dense`, all of them [positions, hidden_size] as the last block
    leaves them.

    With d = z' - z the difference of logits, KL(p || p') = log(1 + E_p[exp d - 1]) - E_p[d]. So
    the product that is made for every model is that of a difference of states, whose rounding
    to `dtype` is small beside the difference itself; z is computed in float32, once.
    """
    spec = reader.spec
    states = final_norm(reader, dense.float()).to(device)
    shifts = [(final_norm(reader, other.float()).to(device) - states).to(dtype) for other in others]
    positions = len(states)
    whole = torch.full((positions,), -math.inf, device=device)
    for rows in _slices(reader, device):
        whole = torch.logaddexp(whole, _capped(states @ rows.T, spec.final_softcap).logsumexp(-1))
    shape = (len(others), positions)
    grown, mean = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
    best = torch.full((len(others) + 1, positions), -math.inf, device=device)
    choices = torch.zeros((len(others) + 1, positions), dtype=torch.int64, device=device)
    start = 0
    for rows in _slices(reader, device):
        raw = states @ rows.T
        logits = _capped(raw, spec.final_softcap)
        p = (logits - whole[:, None]).exp()
        _keep_best(best[-1], choices[-1], logits, start)
        few = rows.to(dtype)
        for index, shift in enumerate(shifts):
            moved = (shift @ few.T).float()
            if spec.final_softcap is not None:
                moved = _capped(raw + moved, spec.final_softcap) - logits
            mean[index] += (p * moved).sum(-1)
            _keep_best(best[index], choices[index], logits + moved, start)
            grown[index] += moved.clamp_(max=_LARGEST).expm1_().mul_(p).sum(-1)
        start += len(rows)
    reader.release()
    # Rounding may leave a hair below zero where nothing changed.
    kl = (grown.double().log1p() - mean.double()).mean(-1).clamp_min(0.0).tolist()
    same = (choices[:-1] == choices[-1]).double().mean(-1).tolist()
    return [Divergence(k, s) for k, s in zip(kl, same, strict=True)]


def _slices(reader: WeightReader, device: torch.device) -> Iterator[torch.Tensor]:
    """The head, float32 [rows, hidden_size] each."""
    spec = reader.spec
    for start in range(0, spec.vocab_size, _HEAD_ROWS):
        indices = np.arange(start, min(start + _HEAD_ROWS, spec.vocab_size), dtype=np.int64)
        yield torch.from_numpy(reader.rows(spec.head_name, indices)).to(device)


def _capped(logits: torch.Tensor, cap: float | None) -> torch.Tensor:
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _keep_best(best: torch.Tensor, choices: torch.Tensor, logits: torch.Tensor, start: int) -> None:
    """The first of the highest so far, in place."""
    highest, place = logits.max(-1)
    better = highest > best
    best[better] = highest[better]
    choices[better] = place[better] + start
