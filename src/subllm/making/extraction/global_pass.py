"""Gradients of a whole dense model, of which one block at a time is in memory.

All text runs forward block by block, and every block's inputs are kept. Then, from the last
block to the first, every sequence runs through the block once more, to be differentiated: what
comes out are the gradients of the block's matrices, and those of its inputs for the block
before. A block is read twice, whatever the number of sequences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file, save_file

from subllm.making.extraction.blocks.torch_blocks import TorchBlocks
from subllm.making.extraction.steps import BlockWork
from subllm.making.pruning.allocation import Allocation
from subllm.making.pruning.method import InputStatistics, Method, Need, Pruned
from subllm.progress import Progress

Tokens = npt.NDArray[np.int32]


@dataclass
class _Stream:
    """One text on its way. states: the inputs of every block so far, on the CPU; upstream: the
    loss's gradient by the outputs of the block at work."""

    tokens: Tokens
    states: list[torch.Tensor]
    upstream: torch.Tensor


def gradients(
    blocks: TorchBlocks, texts: Mapping[Need, Tokens], progress: Progress
) -> Iterator[tuple[int, dict[str, InputStatistics]]]:
    """Layer and statistics by matrix name, of every block from the last to the first, which is
    loaded and dense meanwhile. texts: int32 [sequences, length] for every need, as
    `Need.GRADIENTS` tells; a sequence counts as one sample."""
    layers = blocks.spec.num_layers
    progress.start("gradients", "differentiating", 2 * layers, "blocks")
    streams = {need: _forward_start(blocks, tokens) for need, tokens in texts.items()}
    for layer in range(layers):
        blocks.load(layer)
        for stream in streams.values():
            stream.states.append(_forward(blocks, layer, stream.states[-1]))
        blocks.unload(layer)
        progress.advance("gradients")
    head_loss = blocks.head_loss()
    for stream in streams.values():
        outputs = stream.states.pop()
        for i, (hidden, tokens) in enumerate(zip(outputs, stream.tokens, strict=True)):
            ids = torch.from_numpy(tokens.astype(np.int64))
            stream.upstream[i] = head_loss(hidden[None].to(blocks.device), ids[None])[1][0]
    del head_loss
    for layer in reversed(range(layers)):
        blocks.load(layer)
        found = {need: _backward(blocks, layer, stream) for need, stream in streams.items()}
        yield layer, _by_matrix(texts, found)
        blocks.unload(layer)
        progress.advance("gradients")
    progress.finish("gradients")


def _forward_start(blocks: TorchBlocks, tokens: Tokens) -> _Stream:
    first = blocks.embed(tokens, 1)
    return _Stream(tokens, [first], torch.empty_like(first))


def _forward(blocks: TorchBlocks, layer: int, states: torch.Tensor) -> torch.Tensor:
    after = torch.empty_like(states)
    with torch.no_grad():
        for i, hidden in enumerate(states):
            after[i] = blocks.run(layer, hidden[None])[0]
    return after


def _backward(blocks: TorchBlocks, layer: int, stream: _Stream) -> dict[str, torch.Tensor]:
    """[2, out, in] by matrix name, as `Need.GRADIENTS`; the stream goes back by a block."""
    names = [linear.name for linear in blocks.spec.linears]
    weights = {name: blocks.weight(layer, name).detach().requires_grad_() for name in names}
    double = blocks.dtype == torch.float64
    sums = {
        name: torch.zeros(
            2, *weight.shape, dtype=torch.float64 if double else torch.float32, device=weight.device
        )
        for name, weight in weights.items()
    }
    for i, inputs in enumerate(stream.states.pop()):
        with torch.enable_grad():
            hidden = inputs[None].to(blocks.device).requires_grad_()
            out = blocks.substituted(layer, hidden, weights)
            upstream = stream.upstream[i : i + 1].to(blocks.device)
            found = torch.autograd.grad(out, [hidden, *weights.values()], upstream)
        stream.upstream[i] = found[0][0]
        for name, gradient in zip(names, found[1:], strict=True):
            wide = gradient.to(sums[name].dtype)
            sums[name][0] += wide
            sums[name][1].addcmul_(wide, wide)
    return sums


def _by_matrix(
    texts: Mapping[Need, Tokens], found: Mapping[Need, Mapping[str, torch.Tensor]]
) -> dict[str, InputStatistics]:
    predicted = min(tokens.shape[0] * (tokens.shape[1] - 1) for tokens in texts.values())
    names = next(iter(found.values()))
    return {
        name: InputStatistics(predicted, {need: sums[name] for need, sums in found.items()})
        for name in names
    }


@dataclass(frozen=True)
class Chosen:
    """The step of a block whose masks were chosen for the whole model: they are in
    `directory`, a file a block."""

    directory: Path

    def _path(self, layer: int) -> Path:
        return self.directory / f"chosen-{layer:04d}.safetensors"

    def complete(self, layers: int) -> bool:
        return all(self._path(layer).exists() for layer in range(layers))

    def put(self, layer: int, masks: Mapping[str, torch.Tensor]) -> None:
        """masks: bool [out, in] by matrix name. The file appears by rename."""
        beside = self._path(layer).with_suffix(".partial")
        packed = {name: np.packbits(mask.cpu().numpy(), 1) for name, mask in masks.items()}
        save_file(packed, beside)
        beside.replace(self._path(layer))

    def __call__(self, work: BlockWork) -> None:
        work.collect(work.packing)
        packed = load_file(self._path(work.layer))
        for linear in work.blocks.spec.linears:
            bits = np.unpackbits(packed[linear.name], 1, count=linear.in_features)
            device = work.blocks.weight(work.layer, linear.name).device
            work.matrices[linear.name] = Pruned(torch.from_numpy(bits.astype(np.bool_)).to(device))


def choose_all(
    blocks: TorchBlocks,
    method: Method,
    allocation: Allocation,
    found: Iterable[tuple[int, Mapping[str, InputStatistics]]],
    directory: Path,
) -> Chosen:
    """Masks of the whole model by `method`; taken from `directory` where an earlier run left
    all of them. found: layer and statistics by matrix name, the block being loaded when its
    turn comes; not begun where nothing is to be chosen."""
    chosen = Chosen(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if chosen.complete(blocks.spec.num_layers):
        return chosen
    for layer, statistics in found:
        prefix = blocks.spec.block_prefix(layer)
        masks = {}
        for name, of in statistics.items():
            pattern, weight = allocation.of(f"{prefix}{name}.weight"), blocks.weight(layer, name)
            if pattern.kind == "dense":
                masks[name] = torch.ones_like(weight, dtype=torch.bool)
            else:
                masks[name] = method.prune(weight, of, pattern).mask
        chosen.put(layer, masks)
    return chosen
