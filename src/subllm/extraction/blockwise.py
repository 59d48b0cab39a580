"""The one streaming loop that all layer-wise methods share.

Per block: run the calibration states through the dense block as far as the method's
statistics need, choose masks, pack and write the block, then run the states through
the pruned block to get the next one's inputs (Wanda's order: statistics of a block
come after all earlier blocks were pruned).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from subllm.extraction.blocks import BlockStack
from subllm.extraction.checkpoint import Checkpoint
from subllm.extraction.heldout import HeldoutStream, advance
from subllm.extraction.statistics import SquareSums
from subllm.progress import Progress
from subllm.pruning.method import InputStatistics, Method, Need
from subllm.sparsity.packed_file import PackedWriter
from subllm.sparsity.packing import PackedTensor, pack, unpack
from subllm.sparsity.pattern import Pattern


@dataclass(frozen=True)
class BlockRecipe:
    """How the matrices of every block are pruned and packed."""

    method: Method
    pattern: Pattern
    values: str


OnBlock = Callable[[int, dict[str, torch.Tensor]], None]  # layer, masks by matrix name


class BlockwiseExtraction:
    """Prunes and packs all blocks of `stack`.

    calibration: hidden states entering block 0, [samples, length, hidden], replaced
    block by block; None for a method without statistics. batch: sequences per forward.
    """

    def __init__(
        self,
        stack: BlockStack,
        recipe: BlockRecipe,
        calibration: torch.Tensor | None,
        heldout: list[HeldoutStream],
        batch: int,
        checkpoint: Checkpoint,
        on_block: OnBlock | None = None,
    ) -> None:
        self._stack = stack
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
        return streams

    def run(self, progress: Progress) -> list[Path]:
        """All blocks; returns the packed part files in order."""
        layers = self._stack.spec.num_layers
        self.resumed_at = self._checkpoint.load(self._streams())
        if self.resumed_at:
            progress.note(f"resuming at block {self.resumed_at + 1} of {layers}")
        progress.start("blocks", "pruning", layers, "blocks")
        if self.resumed_at:
            progress.advance("blocks", self.resumed_at)
        for layer in range(self.resumed_at, layers):
            block = self._stack.load(layer)
            with torch.inference_mode():
                self._block(layer, block, last=layer == layers - 1)
            self._stack.unload(layer)
            if layer < layers - 1:
                self._checkpoint.save(layer + 1, self._streams())
            progress.advance("blocks")
        progress.finish("blocks")
        return [self._checkpoint.block_path(layer) for layer in range(layers)]

    def _block(self, layer: int, block: nn.Module, *, last: bool) -> None:
        def forward(part: torch.Tensor) -> torch.Tensor:
            return self._stack.run(layer, part)

        for held in self._heldout:
            advance(held.dense, self._batch, forward)
        statistics = self._statistics(layer, block)
        packed = self._prune(layer, block, statistics)
        self._write(layer, packed)
        if self._calibration is not None and not last:
            advance(self._calibration, self._batch, forward)
        if self._heldout:
            if self._recipe.values != "bf16":
                _load_packed(block, packed)
            for held in self._heldout:
                advance(held.packed, self._batch, forward)

    def _statistics(self, layer: int, block: nn.Module) -> dict[str, InputStatistics]:
        spec = self._stack.spec
        if self._calibration is None or Need.SQUARE_SUMS not in self._recipe.method.needs:
            return {linear.group: InputStatistics(0) for linear in spec.linears}
        sums = SquareSums(spec, block)
        for start in range(0, len(self._calibration), self._batch):
            part = self._calibration[start : start + self._batch]
            sums.feed(partial(self._stack.run, layer, part))
        return sums.finish()

    def _prune(
        self, layer: int, block: nn.Module, statistics: dict[str, InputStatistics]
    ) -> dict[str, PackedTensor]:
        """Masks the block's weights in place and returns them packed, by name."""
        prefix = self._stack.spec.block_prefix(layer)
        packed, masks = {}, {}
        for linear in self._stack.spec.linears:
            weight = block.get_parameter(f"{linear.name}.weight")
            result = self._recipe.method.prune(
                weight.data, statistics[linear.group], self._recipe.pattern
            )
            if result.weight is None:
                # Quantisation starts from the source's precision, not the block's.
                source = self._stack.reader.read(f"{prefix}{linear.name}.weight")
            else:
                weight.data = result.weight
                source = result.weight.float().cpu().numpy()
            weight.data.mul_(result.mask)
            packed[linear.name] = pack(
                source, result.mask.cpu().numpy(), self._recipe.pattern, self._recipe.values
            )
            masks[linear.name] = result.mask
        if self._on_block is not None:
            self._on_block(layer, masks)
        return packed

    def _write(self, layer: int, packed: dict[str, PackedTensor]) -> None:
        prefix = self._stack.spec.block_prefix(layer)
        with PackedWriter(self._checkpoint.block_path(layer)) as writer:
            for name, tensor in packed.items():
                writer.add_packed(f"{prefix}{name}.weight", tensor)


def _load_packed(block: nn.Module, packed: dict[str, PackedTensor]) -> None:
    """Put the values as shipped into the block."""
    for name, tensor in packed.items():
        weight = block.get_parameter(f"{name}.weight")
        weight.data.copy_(torch.from_numpy(unpack(tensor)))
