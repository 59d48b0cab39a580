"""What the streaming loop asks of a model's blocks, whatever computes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from subllm.kernels.sparsity.int4 import Int4Rows
from subllm.kernels.sparsity.packing import PackedTensor
from subllm.making.pruning.method import InputStatistics, Need, Pruned
from subllm.models.arch.spec import ArchSpec

Floats = npt.NDArray[np.float32]
EmbeddingRows = Callable[[npt.NDArray[np.int64]], Floats]
NO_VECTORS: Mapping[str, Floats] = MappingProxyType({})


@dataclass(frozen=True)
class Scores:
    """Of n positions: log_probs float32 [n] of the tokens that stand there, and choices int64
    [n], the most likely ones."""

    log_probs: torch.Tensor
    choices: torch.Tensor


class Blocks(Protocol):
    """The blocks of one model, one of them loaded at a time.

    A loaded block is dense, then pruned (masked, with the weights that a method or a
    recovery gave it), then shipped (its values as they were packed). Hidden states are
    [samples, length, hidden_size] in the dtype that `embed` made them, on the CPU.
    """

    @property
    def spec(self) -> ArchSpec: ...

    @property
    def collects(self) -> frozenset[Need]:
        """What `collect` can collect."""

    def embed(
        self, tokens: npt.NDArray[np.int32], batch: int, rows: EmbeddingRows | None = None
    ) -> torch.Tensor:
        """The first block's inputs for int32 tokens [samples, length], taken `batch`
        sequences at a time. rows: another embedding than the base's, ids int64 [n] ->
        float32 [n, hidden_size]. Raises ExtractionError for tokens outside the vocabulary."""

    def load(self, layer: int) -> None:
        """Block `layer`, dense; `unload` it before the next."""

    def unload(self, layer: int) -> None:
        """Free the block's weights and the file pages that they were read from."""

    def weight(self, layer: int, name: str) -> torch.Tensor:
        """A matrix [out, in] of the loaded block, as the block computes with it."""

    def source(self, layer: int, name: str) -> npt.NDArray[np.float32]:
        """The same matrix in the base's own precision."""

    def coded(self, layer: int, name: str) -> Int4Rows | None:
        """The same matrix in the base's own codes, where int4 holds them without loss."""

    def collect(
        self, layer: int, states: torch.Tensor, batch: int, needs: frozenset[Need]
    ) -> dict[str, InputStatistics]:
        """Statistics of every distinct matrix input of the loaded block, by input group
        (`LinearSpec.group`), over `states`, its inputs."""

    def prune(
        self,
        layer: int,
        matrices: Mapping[str, Pruned],
        packed: Mapping[str, PackedTensor],
        vectors: Mapping[str, Floats] = NO_VECTORS,
    ) -> None:
        """From dense to pruned: what calibration states then run through. vectors: full names of
        norms and biases -> those that take the base's place, also after it was shipped."""

    def ship(self, layer: int, packed: Mapping[str, PackedTensor]) -> None:
        """From pruned to shipped: what held-out states then run through."""

    def run(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """The loaded block on hidden states [batch, length, hidden_size] of a shape that
        `embed` has seen."""

    def score(
        self,
        hidden: torch.Tensor,
        targets: torch.Tensor,
        head: PackedTensor | None,
        vectors: Mapping[str, Floats] = NO_VECTORS,
    ) -> Scores:
        """Of targets int64 [n] after what the last block makes of their predecessors,
        [n, hidden_size], through the final norm (the base's, or what `vectors` has of it) and
        `head` (None: the base's own)."""
