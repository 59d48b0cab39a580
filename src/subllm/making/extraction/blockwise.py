"""The one streaming loop that all layer-wise methods share.

Per block: the steps choose masks (and weights), the result is packed and written, then the
states run through the pruned block to become the next one's inputs (Wanda's order:
statistics of a block come after all earlier blocks were pruned).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from subllm.kernels.sparsity.layout import Values
from subllm.kernels.sparsity.packed_file import PackedWriter
from subllm.kernels.sparsity.packing import PackedTensor
from subllm.making.extraction.blocks.protocol import Blocks, Floats
from subllm.making.extraction.checkpoint import Checkpoint
from subllm.making.extraction.heldout import HeldoutStream, advance
from subllm.making.extraction.quantiser import needs_of
from subllm.making.extraction.steps import BlockStep, BlockWork, pack_block
from subllm.making.pruning.allocation import Allocation
from subllm.progress import Progress


@dataclass(frozen=True)
class BlockRecipe:
    """What is done to every block: steps in their order, then packing. vectors: norms and biases
    that take the place of the base's, by their full names; title: of the progress."""

    steps: Sequence[BlockStep]
    allocation: Allocation
    values: Values
    vectors: Mapping[str, Floats] = field(default_factory=dict)
    title: str = "pruning"


OnBlock = Callable[[int, dict[str, torch.Tensor]], None]  # layer, masks by matrix name


class BlockwiseExtraction:
    """Prunes and packs all of `blocks`.

    calibration: hidden states entering block 0, [samples, length, hidden], replaced
    block by block; None for a method without statistics. batch: sequences per forward.
    """

    def __init__(
        self,
        blocks: Blocks,
        recipe: BlockRecipe,
        calibration: torch.Tensor | None,
        heldout: list[HeldoutStream],
        batch: int,
        checkpoint: Checkpoint,
        on_block: OnBlock | None = None,
    ) -> None:
        self._blocks = blocks
        self._recipe = recipe
        self._calibration = calibration
        self._heldout = heldout
        self._batch = batch
        self._checkpoint = checkpoint
        self._on_block = on_block
        self.resumed_at = 0

    def _streams(self) -> dict[str, torch.Tensor]:
        streams = {} if self._calibration is None else {"calibration": self._calibration}
        for held in self._heldout:
            streams[f"{held.domain}.dense"] = held.dense
            streams[f"{held.domain}.packed"] = held.packed
            if held.masked is not None:
                streams[f"{held.domain}.masked"] = held.masked
        return streams

    def run(self, progress: Progress) -> list[Path]:
        """All blocks; returns the packed part files in order."""
        layers = self._blocks.spec.num_layers
        self.resumed_at = self._checkpoint.load(self._streams())
        if self.resumed_at:
            progress.note(f"resuming at block {self.resumed_at + 1} of {layers}")
        progress.start("blocks", self._recipe.title, layers, "blocks")
        if self.resumed_at:
            progress.advance("blocks", self.resumed_at)
        for layer in range(self.resumed_at, layers):
            self._blocks.load(layer)
            # A step that learns switches gradients on for itself.
            with torch.no_grad():
                self._block(layer, last=layer == layers - 1)
            self._blocks.unload(layer)
            if layer < layers - 1:
                self._checkpoint.save(layer + 1, self._streams())
            progress.advance("blocks")
        progress.finish("blocks")
        return [self._checkpoint.block_path(layer) for layer in range(layers)]

    def _block(self, layer: int, *, last: bool) -> None:
        forward = partial(self._blocks.run, layer)
        for held in self._heldout:
            advance(held.dense, self._batch, forward)
        packing = needs_of(self._recipe.values) & self._blocks.collects
        work = BlockWork(self._blocks, layer, self._calibration, self._batch, packing)
        for step in self._recipe.steps:
            step(work)
        packed = pack_block(work, self._recipe.allocation, self._recipe.values)
        if self._on_block is not None:
            self._on_block(layer, {name: pruned.mask for name, pruned in work.matrices.items()})
        self._write(layer, packed)
        masked = [held.masked for held in self._heldout if held.masked is not None]
        if self._calibration is not None and not last:
            masked.append(self._calibration)
        if masked:
            self._blocks.prune(layer, work.matrices, packed, self._recipe.vectors)
        for states in masked:
            advance(states, self._batch, forward)
        if self._heldout:
            self._blocks.ship(layer, packed)
            for held in self._heldout:
                advance(held.packed, self._batch, forward)

    def _write(self, layer: int, packed: dict[str, PackedTensor]) -> None:
        prefix = self._blocks.spec.block_prefix(layer)
        with PackedWriter(self._checkpoint.block_path(layer)) as writer:
            for name, tensor in packed.items():
                writer.add_packed(f"{prefix}{name}.weight", tensor)
