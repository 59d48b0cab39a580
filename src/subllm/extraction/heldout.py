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

from subllm.extraction.blocks.protocol import Blocks
from subllm.sparsity.packing import PackedTensor
from subllm.store.manifest import Perplexity


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
    blocks: Blocks,
    hidden: torch.Tensor,
    tokens: npt.NDArray[np.int32],
    head: PackedTensor | None,
) -> float:
    """exp of the mean negative log-likelihood of tokens[:, 1:] given those before.

    hidden: last block's outputs [sequences, length, hidden]; tokens int32 of the same
    first two dimensions; head as in `Blocks.score`.
    """
    with torch.no_grad():
        states = hidden[:, :-1].reshape(-1, hidden.shape[-1])
        gold = torch.from_numpy(tokens[:, 1:].astype(np.int64)).reshape(-1)
        return math.exp(-float(blocks.score(states, gold, head).double().mean()))


def compare(blocks: Blocks, stream: HeldoutStream, head: PackedTensor) -> Perplexity:
    """Both streams' perplexities, the packed one's with the packed `head`; figures rounded
    to 6 digits, as manifests hold them."""
    before = perplexity(blocks, stream.dense, stream.tokens, None)
    after = perplexity(blocks, stream.packed, stream.tokens, head)
    count = stream.tokens.shape[0] * (stream.tokens.shape[1] - 1)
    return Perplexity(before=float(f"{before:.6g}"), after=float(f"{after:.6g}"), tokens=count)
