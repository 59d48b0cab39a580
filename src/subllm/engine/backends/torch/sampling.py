"""Sampling on torch logits; agrees with `engine.sampler`, which defines it.

Sorting a whole vocabulary costs milliseconds, and filters and draws only ever look at
the head of the order. So the head alone is sorted first, and everything only when the
answer lies further down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from subllm.engine.backend import Draw
from subllm.engine.request import SamplingParams, TokenLogprob
from subllm.engine.sampler import forbidden, needs_adjustment
from subllm.errors import LogitsError

_HEAD = 1024


def adjust(logits: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Bias, penalties and what is allowed, on float32 [vocab]; returns a new tensor."""
    params, out = draw.params, logits.clone()
    device = out.device
    if params.logit_bias:
        ids, biases = zip(*params.logit_bias, strict=True)
        index = torch.tensor(ids, device=device)
        out.index_put_((index,), torch.tensor(biases, device=device), accumulate=True)
    if params.repetition_penalty != 1.0:
        seen = torch.from_numpy(np.unique(draw.history)).to(device, torch.int64)
        values, penalty = out[seen], params.repetition_penalty
        out[seen] = torch.where(values > 0, values / penalty, values * penalty)
    if params.presence_penalty or params.frequency_penalty:
        tokens, counts = np.unique(draw.history[draw.prompt_length :], return_counts=True)
        index = torch.from_numpy(tokens).to(device, torch.int64)
        out[index] -= params.presence_penalty
        out[index] -= params.frequency_penalty * torch.from_numpy(counts).to(device).float()
    if draw.allowed is not None:
        out[torch.from_numpy(forbidden(draw.allowed, len(out))).to(device)] = -torch.inf
    return out


def without_nan(logits: torch.Tensor) -> torch.Tensor:
    """The same with NaN, which is never chosen, as the lowest."""
    return logits.nan_to_num(-torch.inf, torch.inf, -torch.inf)


def _ordered(adjusted: torch.Tensor, count: int) -> torch.Tensor:
    """The ids of the `count` largest, largest first, equal ones by lower id."""
    if count >= len(adjusted):
        return adjusted.sort(descending=True, stable=True).indices
    least = adjusted.topk(count).values[-1]
    candidates = (adjusted >= least).nonzero().squeeze(-1)  # ties included, ids ascending
    order = adjusted[candidates].sort(descending=True, stable=True).indices
    return candidates[order][:count]


@dataclass(frozen=True)
class _Kept:
    """What the filters keep of the best tokens, in drawing order.

    weights: float64, unnormalised. mass: of everything that is kept, also beyond these
    tokens; None where it is not known because the filters keep all of these.
    """

    ids: torch.Tensor
    weights: torch.Tensor
    mass: float | None
    complete: bool


def _filter(adjusted: torch.Tensor, params: SamplingParams, size: int) -> _Kept:
    """Applies the filters, looking at the `size` best tokens only (or those of top_k)."""
    ids = _ordered(adjusted, params.top_k or size)
    peak = adjusted[ids[0]].double()  # subtracted first: a quotient may be infinite
    weights = ((adjusted[ids].double() - peak) / params.temperature).exp()
    complete = len(ids) == len(adjusted) or params.top_k > 0
    cumulative = weights.cumsum(0)
    mass = cumulative[-1]
    if not complete:
        mass = ((adjusted.double() - peak) / params.temperature).exp().sum()
    count = len(ids)
    if params.top_p < 1.0:
        count = int(torch.searchsorted(cumulative, params.top_p * mass, side="left")) + 1
    if params.min_p > 0.0:
        count = min(count, int((weights >= params.min_p * weights[0]).sum()))
    if complete or count < len(ids):
        count = min(count, len(ids))
        return _Kept(ids[:count], weights[:count], float(cumulative[count - 1]), True)
    unfiltered = params.top_p == 1.0 and params.min_p == 0.0
    return _Kept(ids, weights, float(mass) if unfiltered else None, False)


def kept(adjusted: torch.Tensor, params: SamplingParams) -> tuple[torch.Tensor, torch.Tensor]:
    """All tokens that the filters keep, in drawing order, and their float64 weights."""
    found = _filter(adjusted, params, _HEAD)
    if not found.complete:
        found = _filter(adjusted, params, len(adjusted))
    return found.ids, found.weights


def sample(logits: torch.Tensor, draw: Draw) -> int:
    """The token that `draw` chooses from float32 logits [vocab]. Raises LogitsError."""
    params = draw.params
    changed = needs_adjustment(params) or draw.allowed is not None
    adjusted = adjust(logits, draw) if changed else logits
    adjusted = without_nan(adjusted)
    best = adjusted.argmax()
    if not adjusted[best].isfinite():
        raise LogitsError
    if params.temperature == 0.0:
        return int(best)
    found = _filter(adjusted, params, _HEAD)
    if not found.complete:
        reached = found.mass is not None and draw.uniform * found.mass < found.weights.sum()
        if not reached:
            found = _filter(adjusted, params, len(adjusted))
    assert found.mass is not None
    target = draw.uniform * found.mass
    index = int(torch.searchsorted(found.weights.cumsum(0), target, side="right"))
    return int(found.ids[min(index, len(found.ids) - 1)])


def logprobs(logits: torch.Tensor, targets: list[int], top: int) -> list[TokenLogprob]:
    """For each row of float32 logits [rows, vocab]: its target's log-probability and
    the `top` best tokens. Raises LogitsError where the largest of a row is not finite."""
    logits = without_nan(logits)
    if not logits.amax(-1).isfinite().all():
        raise LogitsError
    norms = logits.logsumexp(-1)
    picked = logits.gather(1, torch.tensor(targets, device=logits.device)[:, None])[:, 0] - norms
    result = []
    for row, target, value in zip(range(len(targets)), targets, picked.tolist(), strict=True):
        best: tuple[tuple[int, float], ...] = ()
        if top:
            ids = _ordered(logits[row], top)
            values = (logits[row][ids] - norms[row]).tolist()
            best = tuple(zip(ids.tolist(), values, strict=True))
        result.append(TokenLogprob(target, value, best))
    return result
