"""How far next-token distributions are from the dense model's, over the whole vocabulary."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from subllm.making.extraction.blocks.native_blocks import final_norm
from subllm.models.weights.reader import WeightReader

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
    to `dtype` is small beside the difference itself; z is computed in float32, once. As a
    constant in d changes nothing, d is 0 at the dense model's first choice: its exponential
    neither vanishes nor grows where all logits moved together.
    """
    spec = reader.spec
    states = final_norm(reader, dense.float()).to(device)
    shifts = [(final_norm(reader, other.float()).to(device) - states).to(dtype) for other in others]
    positions = len(states)
    shape = (len(others), positions)
    best = torch.full((len(others) + 1, positions), -math.inf, device=device)
    choices = torch.zeros((len(others) + 1, positions), dtype=torch.int64, device=device)
    whole = torch.full((positions,), -math.inf, device=device)
    start = 0
    for rows in _slices(reader, device):
        logits = _capped(states @ rows.T, spec.final_softcap)
        _keep_best(best[-1], choices[-1], logits, start)
        whole = torch.logaddexp(whole, logits.logsumexp(-1))
        start += len(rows)
    first = reader.rows(spec.head_name, choices[-1].cpu().numpy())
    at_first = _Moved(states, torch.from_numpy(first).to(device), spec.final_softcap, each=True)
    offsets = [at_first.by(shift) for shift in shifts]
    grown, mean = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
    start = 0
    for rows in _slices(reader, device):
        here = _Moved(states, rows, spec.final_softcap)
        p = (here.logits - whole[:, None]).exp()
        for index, shift in enumerate(shifts):
            moved = here.by(shift).sub_(offsets[index][:, None])
            mean[index] += (p * moved).sum(-1)
            _keep_best(best[index], choices[index], here.logits + moved, start)
            grown[index] += moved.clamp_(max=_LARGEST).expm1_().mul_(p).sum(-1)
        start += len(rows)
    reader.release()
    # Rounding may leave a hair below zero where nothing changed.
    kl = (grown.double().log1p() - mean.double()).mean(-1).clamp_min(0.0).tolist()
    same = (choices[:-1] == choices[-1]).double().mean(-1).tolist()
    return [Divergence(k, s) for k, s in zip(kl, same, strict=True)]


class _Moved:
    """Logits of `states` [n, hidden] at `rows` of the head [m, hidden], [n, m], and how a
    difference of states moves them; `each`: of state i at row i alone, [n]."""

    def __init__(
        self, states: torch.Tensor, rows: torch.Tensor, cap: float | None, *, each: bool = False
    ) -> None:
        self._rows, self._cap, self._each = rows, cap, each
        self._rounded: torch.Tensor | None = None
        self._raw = self._product(states)
        self.logits = _capped(self._raw, cap)

    def _product(self, states: torch.Tensor) -> torch.Tensor:
        if self._each:
            return (states.float() * self._rows).sum(-1)
        rows = self._rows if states.dtype == torch.float32 else self._few(states.dtype)
        return (states @ rows.T).float()

    def _few(self, dtype: torch.dtype) -> torch.Tensor:
        if self._rounded is None:
            self._rounded = self._rows.to(dtype)
        return self._rounded

    def by(self, shift: torch.Tensor) -> torch.Tensor:
        """Float32, for a difference of states in any dtype."""
        moved = self._product(shift)
        return moved if self._cap is None else _capped(self._raw + moved, self._cap) - self.logits


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
