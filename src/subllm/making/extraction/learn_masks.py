"""The training of MaskLLM's logits over a whole frozen model.

A step runs a batch of sequences forward block by block under softly drawn masks, keeping every
block's inputs, then backward: each block is run once more, with the same draw, and its logits
move at once, so that gradients of two blocks never exist together. The blocks are all in memory,
with three float32 numbers for every logit: its value and Adam's two moments.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from subllm.making.extraction.blocks.head_loss import HeadLoss
from subllm.making.extraction.blocks.torch_blocks import TorchBlocks
from subllm.making.pruning.allocation import Allocation
from subllm.making.pruning.maskllm import (
    Training,
    candidates,
    first_logits,
    gumbel_noise,
    soft_mask,
)
from subllm.making.pruning.method import InputStatistics, Need
from subllm.making.pruning.wanda import Wanda
from subllm.progress import Progress

Tokens = npt.NDArray[np.int32]
_AT_ONCE = 2  # sequences that the prior's statistics are collected of together


class MaskTraining:
    """Learns the logits of all matrices of `blocks` that `allocation` does not leave dense.
    tokens: int32 [sequences, length], drawn from without end. The same arguments give the same
    logits on the same machine."""

    def __init__(
        self,
        blocks: TorchBlocks,
        allocation: Allocation,
        training: Training,
        tokens: Tokens,
        progress: Progress,
    ) -> None:
        self._blocks = blocks
        self._training = training
        self._tokens = tokens
        self._progress = progress
        self._wide = torch.float64 if blocks.dtype == torch.float64 else torch.float32
        self._generator = torch.Generator().manual_seed(0)
        self._names = [linear.name for linear in blocks.spec.linears]
        self._patterns = {
            (layer, name): allocation.of(f"{blocks.spec.block_prefix(layer)}{name}.weight")
            for layer in range(blocks.spec.num_layers)
            for name in self._names
        }
        self._masks = {
            pattern: candidates(pattern).to(blocks.device)
            for pattern in set(self._patterns.values())
            if pattern.kind != "dense"
        }
        self._logits: dict[tuple[int, str], torch.Tensor] = {}
        self.losses: list[float] = []
        """Of every step's batch under its soft masks, in nats a token."""

    def run(self) -> Iterator[tuple[int, dict[str, InputStatistics]]]:
        """Trains; then layer and statistics by matrix name, block by block."""
        layers, training = self._blocks.spec.num_layers, self._training
        self._start()
        optimisers = [
            torch.optim.Adam(self._of(layer).values(), lr=training.lr, betas=(0.9, 0.999))
            if self._of(layer)
            else None
            for layer in range(layers)
        ]
        head_loss = self._blocks.head_loss()
        self._progress.start("masks", "learning masks", training.steps, "items")
        for step in range(training.steps):
            rows = torch.randint(
                len(self._tokens), (training.batch,), generator=self._generator
            ).numpy()
            self.losses.append(self._step(step, self._tokens[rows], head_loss, optimisers))
            self._progress.advance("masks")
        self._progress.finish("masks")
        few = max(1, training.steps // 10)
        first, last = np.mean(self.losses[:few]), np.mean(self.losses[-few:])
        self._progress.note(f"loss under soft masks: {first:.3f} at first, {last:.3f} at last")
        tokens = training.steps * training.batch * self._tokens.shape[1]
        for layer in range(layers):
            yield (
                layer,
                {
                    name: InputStatistics(
                        tokens,
                        {Need.MASK_LOGITS: self._logits[layer, name].detach()}
                        if (layer, name) in self._logits
                        else {},
                    )
                    for name in self._names
                },
            )

    def _of(self, layer: int) -> dict[str, torch.Tensor]:
        return {
            name: self._logits[layer, name] for name in self._names if (layer, name) in self._logits
        }

    def _start(self) -> None:
        """All blocks in memory, and logits from the masks of Wanda on the dense model."""
        blocks, method = self._blocks, Wanda()
        states = blocks.embed(self._tokens, _AT_ONCE)
        for layer in range(blocks.spec.num_layers):
            blocks.load(layer)
            with torch.no_grad():
                inputs = blocks.collect(layer, states, _AT_ONCE, method.needs)
                for start in range(0, len(states), _AT_ONCE):
                    part = states[start : start + _AT_ONCE]
                    part.copy_(blocks.run(layer, part))
            for linear in blocks.spec.linears:
                pattern = self._patterns[layer, linear.name]
                if pattern.kind == "dense":
                    continue
                weight = blocks.weight(layer, linear.name)
                prior = method.prune(weight, inputs[linear.group], pattern).mask
                logits = first_logits(
                    prior, self._masks[pattern], self._training.prior, self._generator
                )
                self._logits[layer, linear.name] = logits.requires_grad_()

    def _step(
        self,
        step: int,
        tokens: Tokens,
        head_loss: HeadLoss,
        optimisers: list[torch.optim.Adam | None],
    ) -> float:
        blocks = self._blocks
        layers = blocks.spec.num_layers
        states = [blocks.embed(tokens, len(tokens)).to(blocks.device)]
        with torch.no_grad():
            for layer in range(layers):
                drawn = self._drawn(step, layer)
                states.append(blocks.substituted(layer, states[-1], drawn))
        ids = torch.from_numpy(tokens.astype(np.int64))
        predicted = ids[:, 1:].numel()
        total, upstream = head_loss(states.pop(), ids)
        upstream = upstream / predicted
        for layer in reversed(range(layers)):
            hidden = states.pop().detach().requires_grad_()
            logits = self._of(layer)
            with torch.enable_grad():
                drawn = self._drawn(step, layer)
                out = blocks.substituted(layer, hidden, drawn)
                # The loss so far as this block knows it: its gradient is that of all.
                loss = (out * upstream).sum(dtype=self._wide)
                for weight in drawn.values():
                    loss = loss - self._training.sparse * weight.to(self._wide).square().sum()
                found = torch.autograd.grad(loss, [hidden, *logits.values()])
            upstream = found[0]
            for one, gradient in zip(logits.values(), found[1:], strict=True):
                one.grad = gradient
            optimiser = optimisers[layer]
            if optimiser is not None:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
        return total / predicted

    def _drawn(self, step: int, layer: int) -> dict[str, torch.Tensor]:
        """The layer's matrices under soft masks; twice the same in one step."""
        training = self._training
        generator = torch.Generator().manual_seed(step * self._blocks.spec.num_layers + layer)
        noise = partial(gumbel_noise, generator=generator)
        weights = {}
        for name, logits in self._of(layer).items():
            weight = self._blocks.weight(layer, name)
            mask = soft_mask(
                logits,
                self._masks[self._patterns[layer, name]],
                noise(tuple(logits.shape)).to(logits.device),
                training.scale(step),
                training.temperature(step),
            )
            weights[name] = weight * mask.to(weight.dtype)
        return weights
