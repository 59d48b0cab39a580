"""Perplexity and agreement on held-out text, carried along block by block.

Two streams of hidden states go through the same blocks as the calibration data: one
through the dense weights, one through the weights as they are packed. So neither
model is ever whole in memory, and the figure is that of the shipped values. A third, where
there is one, goes through the weights that are packed, and tells what packing costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from subllm.kernels.sparsity.packing import PackedTensor
from subllm.making.extraction.blocks.protocol import NO_VECTORS, Blocks, Floats, Scores
from subllm.models.store.manifest import Perplexity


@dataclass
class HeldoutStream:
    """Held-out tokens of one domain with its streams of hidden states
    [sequences, length, hidden], on the CPU."""

    domain: str
    tokens: npt.NDArray[np.int32]
    dense: torch.Tensor
    packed: torch.Tensor
    masked: torch.Tensor | None = None


def advance(hidden: torch.Tensor, batch: int, run: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replace hidden states by the block's outputs, `batch` sequences at a time."""
    with torch.no_grad():
        for start in range(0, len(hidden), batch):
            part = hidden[start : start + batch]
            part.copy_(run(part))


def scores(
    blocks: Blocks,
    hidden: torch.Tensor,
    tokens: npt.NDArray[np.int32],
    head: PackedTensor | None,
    vectors: Mapping[str, Floats] = NO_VECTORS,
) -> Scores:
    """Of tokens[:, 1:] given those before.

    hidden: last block's outputs [sequences, length, hidden]; tokens int32 of the same
    first two dimensions; head and vectors as in `Blocks.score`.
    """
    with torch.no_grad():
        states = hidden[:, :-1].reshape(-1, hidden.shape[-1])
        gold = torch.from_numpy(tokens[:, 1:].astype(np.int64)).reshape(-1)
        return blocks.score(states, gold, head, vectors)


def compare(
    blocks: Blocks,
    stream: HeldoutStream,
    head: PackedTensor,
    vectors: Mapping[str, Floats] = NO_VECTORS,
) -> Perplexity:
    """The streams' perplexities and how often they choose the same token, the packed one with
    the packed `head`, the masked one with the base's, both with `vectors`; figures rounded to 6
    digits, as manifests hold them."""
    before = scores(blocks, stream.dense, stream.tokens, None)
    after = scores(blocks, stream.packed, stream.tokens, head, vectors)
    masked = None
    if stream.masked is not None:
        masked = scores(blocks, stream.masked, stream.tokens, None, vectors)
    return Perplexity(
        before=_rounded(_perplexity(before)),
        after=_rounded(_perplexity(after)),
        tokens=len(before.choices),
        agreement=_rounded(float((before.choices == after.choices).double().mean())),
        unpacked=None if masked is None else _rounded(_perplexity(masked)),
    )


def _perplexity(found: Scores) -> float:
    """exp of the mean negative log-likelihood."""
    return math.exp(-float(found.log_probs.double().mean()))


def _rounded(figure: float) -> float:
    return float(f"{figure:.6g}")
