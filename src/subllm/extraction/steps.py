"""What happens to one block between its dense and its packed form: choose, recover, pack.

A step is a function on the block at work. Choosing gives every matrix a mask (and, for
methods that update what they keep, new weights); a recovery replaces weights under the
same masks; packing comes last, whatever came before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from subllm.extraction.blocks.protocol import Blocks
from subllm.pruning.method import InputStatistics, Method, Need, Pruned
from subllm.sparsity.packing import PackedTensor, pack
from subllm.sparsity.pattern import Pattern


@dataclass
class BlockWork:
    """One loaded, dense block of `blocks`, and what the steps made of it.

    states    its calibration inputs [samples, length, hidden], all earlier blocks pruned;
              None without calibration
    batch     sequences per forward
    matrices  mask and perhaps new weights, by matrix name
    """

    blocks: Blocks
    layer: int
    states: torch.Tensor | None
    batch: int
    matrices: dict[str, Pruned] = field(default_factory=dict)

    def collect(self, needs: frozenset[Need]) -> dict[str, InputStatistics]:
        """Statistics by input group; empty ones where nothing is needed or calibrated."""
        if self.states is None or not needs:
            return {linear.group: InputStatistics(0) for linear in self.blocks.spec.linears}
        return self.blocks.collect(self.layer, self.states, self.batch, needs)


BlockStep = Callable[[BlockWork], None]


@dataclass(frozen=True)
class Choose:
    """The step that a pruning method is."""

    method: Method
    pattern: Pattern

    def __call__(self, work: BlockWork) -> None:
        statistics = work.collect(self.method.needs)
        for linear in work.blocks.spec.linears:
            weight = work.blocks.weight(work.layer, linear.name)
            work.matrices[linear.name] = self.method.prune(
                weight, statistics[linear.group], self.pattern
            )


def pack_block(work: BlockWork, pattern: Pattern, values: str) -> dict[str, PackedTensor]:
    """The matrices under their masks, by name. Weights that no step replaced are quantised
    from the base's own precision, not the block's."""
    packed = {}
    for name, pruned in work.matrices.items():
        if pruned.weight is None:
            weight = work.blocks.source(work.layer, name)
        else:
            weight = pruned.weight.float().cpu().numpy()
        packed[name] = pack(weight, pruned.mask.cpu().numpy(), pattern, values)
    return packed
