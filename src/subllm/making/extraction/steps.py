"""What happens to one block between its dense and its packed form: choose, recover, pack.

A step is a function on the block at work. Choosing gives every matrix a mask (and, for
methods that update what they keep, new weights); a recovery replaces weights under the
same masks; packing comes last, whatever came before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from subllm.kernels.sparsity.int4 import pack_int4
from subllm.kernels.sparsity.layout import Values
from subllm.kernels.sparsity.packed_file import PackedReader
from subllm.kernels.sparsity.packing import PackedTensor, unpack, unpack_mask
from subllm.making.extraction.blocks.protocol import Blocks, Floats
from subllm.making.extraction.quantiser import Quantiser, stored_as
from subllm.making.pruning.allocation import Allocation
from subllm.making.pruning.method import InputStatistics, Method, Need, Pruned
from subllm.models.arch.spec import LinearSpec


@dataclass
class BlockWork:
    """One loaded, dense block of `blocks`, and what the steps made of it.

    states    its calibration inputs [samples, length, hidden], all earlier blocks pruned;
              None without calibration
    batch     sequences per forward
    packing   further statistics that packing makes use of, where any are collected
    matrices  mask and perhaps new weights, by matrix name
    inputs    the statistics that were collected, by input group
    packed    matrices that are packed already, by name
    """

    blocks: Blocks
    layer: int
    states: torch.Tensor | None
    batch: int
    packing: frozenset[Need] = frozenset()
    matrices: dict[str, Pruned] = field(default_factory=dict)
    inputs: dict[str, InputStatistics] = field(default_factory=dict)
    packed: dict[str, PackedTensor] = field(default_factory=dict)

    def full_name(self, linear: LinearSpec) -> str:
        """How the model calls a matrix of this block."""
        return f"{self.blocks.spec.block_prefix(self.layer)}{linear.name}.weight"

    def collect(self, needs: frozenset[Need]) -> dict[str, InputStatistics]:
        """Statistics by input group; empty ones where nothing is needed or calibrated."""
        if self.states is None or not needs:
            self.inputs = {linear.group: InputStatistics(0) for linear in self.blocks.spec.linears}
        else:
            self.inputs = self.blocks.collect(
                self.layer, self.states, self.batch, needs | self.packing
            )
        return self.inputs


BlockStep = Callable[[BlockWork], None]


@dataclass(frozen=True)
class Choose:
    """The step that a pruning method is."""

    method: Method
    allocation: Allocation

    def __call__(self, work: BlockWork) -> None:
        statistics = work.collect(self.method.needs)
        for linear in work.blocks.spec.linears:
            weight = work.blocks.weight(work.layer, linear.name)
            pattern = self.allocation.of(work.full_name(linear))
            if pattern.kind == "dense":
                work.matrices[linear.name] = Pruned(torch.ones_like(weight, dtype=torch.bool))
            else:
                work.matrices[linear.name] = self.method.prune(
                    weight, statistics[linear.group], pattern
                )


@dataclass(frozen=True)
class Given:
    """The step of masks and weights that are there already: those of `pruned`, whose matrices
    have the model's full names, with the weights of `learned` where that has the matrix. Dense
    matrices that did not learn are the base's. Those of `rounded` are packed as they are."""

    pruned: PackedReader
    learned: PackedReader | None
    rounded: PackedReader | None = None

    def vectors(self) -> dict[str, Floats]:
        """Norms and biases that learned, by their full names."""
        return {
            name: source.vector(name)
            for source in (self.pruned, self.learned)
            if source is not None
            for name in source.vectors
        }

    def __call__(self, work: BlockWork) -> None:
        work.collect(work.packing)
        learned = set(self.learned.names()) if self.learned is not None else set()
        for linear in work.blocks.spec.linears:
            name = work.full_name(linear)
            tensor = self.pruned.tensor(name)
            device = work.blocks.weight(work.layer, linear.name).device
            mask = torch.from_numpy(unpack_mask(tensor)).to(device)
            weight = None
            if self.learned is not None and name in learned:
                weight = unpack(self.learned.tensor(name))
            elif tensor.pattern != "dense":
                weight = unpack(tensor)
            work.matrices[linear.name] = Pruned(
                mask, None if weight is None else torch.from_numpy(weight)
            )
            if self.rounded is not None and name in self.rounded.table:
                work.packed[linear.name] = self.rounded.tensor(name)


@dataclass(frozen=True)
class KeepAll:
    """The step of a dense model: nothing is dropped, packing has its statistics."""

    def __call__(self, work: BlockWork) -> None:
        work.collect(work.packing)
        for linear in work.blocks.spec.linears:
            shape = (linear.out_features, linear.in_features)
            work.matrices[linear.name] = Pruned(torch.ones(shape, dtype=torch.bool))


def pack_block(work: BlockWork, allocation: Allocation, values: Values) -> dict[str, PackedTensor]:
    """The matrices under their masks, by name, stored as `stored_as` says. Weights that no step
    replaced are quantised from the base's own precision, not the block's; a dense int4 matrix
    keeps the base's codes where those are int4. What is packed already stays as it is."""
    packed = {}
    quantisers = {group: Quantiser(inputs) for group, inputs in work.inputs.items()}
    for linear in work.blocks.spec.linears:
        if linear.name in work.packed:
            packed[linear.name] = work.packed[linear.name]
            continue
        pruned, pattern = work.matrices[linear.name], allocation.of(work.full_name(linear))
        dense = pattern.kind == "dense"
        if pruned.weight is None:
            codes = work.blocks.coded(work.layer, linear.name) if dense else None
            if codes is not None and values == "int4":
                packed[linear.name] = pack_int4(codes, None, pattern)
                continue
            weight = work.blocks.source(work.layer, linear.name)
        else:
            weight = pruned.weight.float().cpu().numpy()
        mask = None if dense else pruned.mask.cpu().numpy()
        packed[linear.name] = quantisers[linear.group].pack(
            weight, mask, pattern, stored_as(linear, values)
        )
    return packed
