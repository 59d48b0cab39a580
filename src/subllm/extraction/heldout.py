"""Perplexity of held-out text, before and after, carried along block by block.

Two streams of hidden states go through the same blocks as the calibration data: one
through the dense weights, one through the weights as they are packed. So neither
model is ever whole in memory, and the figure is that of the shipped values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from subllm.store.manifest import Perplexity

# Rows of the head multiplied at a time: 16,384 x 4,096 in float32 is 256 MB at most.
_HEAD_ROWS = 16384

HeadRows = Callable[[int, int], torch.Tensor]  # rows [start, stop) of the head, [n, hidden]


@dataclass
class HeldoutStream:
    """Held-out tokens of one domain with both streams of hidden states
    [sequences, length, hidden], on the CPU."""

    domain: str
    tokens: npt.NDArray[np.int32]
    dense: torch.Tensor
    packed: torch.Tensor


def advance(hidden: torch.Tensor, batch: int, run: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replace hidden states by the block's outputs, `batch` sequences at a time."""
    with torch.no_grad():
        for start in range(0, len(hidden), batch):
            part = hidden[start : start + batch]
            part.copy_(run(part))


def perplexity(
    hidden: torch.Tensor,
    tokens: npt.NDArray[np.int32],
    norm: nn.Module,
    head_rows: HeadRows,
    vocab_size: int,
    softcap: float | None,
    device: torch.device,
) -> float:
    """exp of the mean negative log-likelihood of tokens[:, 1:] given those before.

    hidden: last block's outputs [sequences, length, hidden]; tokens int32 of the same
    first two dimensions. The head is multiplied in slices and the log-sum-exp kept
    running, in float32.
    """
    with torch.no_grad():
        states = norm(hidden[:, :-1].to(device)).reshape(-1, hidden.shape[-1])
        gold = torch.from_numpy(tokens[:, 1:].astype(np.int64)).reshape(-1).to(device)
        log_sum = torch.full((len(states),), -math.inf, device=device)
        gold_logit = torch.zeros(len(states), device=device)
        for start in range(0, vocab_size, _HEAD_ROWS):
            stop = min(start + _HEAD_ROWS, vocab_size)
            rows = head_rows(start, stop).to(device, states.dtype)
            # Tokens in slices too: logits of all would outweigh the head slice.
            for first in range(0, len(states), 1024):
                piece = slice(first, first + 1024)
                logits = (states[piece] @ rows.T).float()
                if softcap is not None:
                    logits = torch.tanh(logits / softcap) * softcap
                log_sum[piece] = torch.logaddexp(log_sum[piece], logits.logsumexp(-1))
                here = (gold[piece] >= start) & (gold[piece] < stop)
                index = (gold[piece] - start).clamp(0, stop - start - 1)
                picked = logits.gather(1, index[:, None])[:, 0]
                gold_logit[piece] = torch.where(here, picked, gold_logit[piece])
        return math.exp(float((log_sum - gold_logit).double().mean()))


def compare(
    stream: HeldoutStream,
    norm: nn.Module,
    dense_head: HeadRows,
    packed_head: HeadRows,
    vocab_size: int,
    softcap: float | None,
    device: torch.device,
) -> Perplexity:
    """Both streams' perplexities; figures rounded to 6 digits, as manifests hold them."""
    before, after = (
        perplexity(hidden, stream.tokens, norm, head, vocab_size, softcap, device)
        for hidden, head in ((stream.dense, dense_head), (stream.packed, packed_head))
    )
    count = stream.tokens.shape[0] * (stream.tokens.shape[1] - 1)
    return Perplexity(before=float(f"{before:.6g}"), after=float(f"{after:.6g}"), tokens=count)
