"""The measurement: KL of the model with one group of matrices pruned at a time.

States before a layer are those of the dense model, whatever is pruned from there on, so a
group costs the layers above it only. Blocks stream as in an extraction: all models under way
go through a block while it is loaded. Layers are taken in chunks, so that the states of those
models fit; what a chunk gave is saved, and a run that was stopped goes on after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.extraction.blocks.torch_blocks import TorchBlocks
from subllm.making.extraction.heldout import advance
from subllm.making.extraction.sensitivity.divergence import Divergence, divergences
from subllm.making.extraction.sensitivity.record import (
    Group,
    Sensitivity,
    from_json,
    groups_of,
    to_json,
)
from subllm.making.pruning.method import InputStatistics, Method, Pruned
from subllm.progress import Progress

BATCH = 4
"""Sequences per forward; all counts of sequences are multiples of it."""

_STATES_BYTES = 600_000_000  # of the models under way
EVERY = 2
"""The divergence of a group is taken at every second position: the head costs as much as blocks."""


@dataclass(frozen=True)
class Ground:
    """What a sweep works on.

    tokens    int32 [samples, length], multiples of BATCH: for the method's statistics
    measured  how many of the first samples the divergence is measured on
    alone     patterns of one group pruned alone
    whole     patterns of all matrices pruned
    """

    blocks: TorchBlocks
    method: Method
    alone: Sequence[Pattern]
    whole: Sequence[Pattern]
    tokens: npt.NDArray[np.int32]
    measured: int


class Sweep:
    """Measures `Sensitivity` of one model, with what is done kept in `file`."""

    def __init__(self, ground: Ground, file: Path, key: Mapping[str, Any]) -> None:
        assert not (len(ground.tokens) % BATCH or ground.measured % BATCH)
        self._ground, self._file, self._key = ground, file, key
        self._spec = ground.blocks.spec

    def run(self, progress: Progress) -> Sensitivity:
        """All groups. Raises what the method and the store raise."""
        layers = self._spec.num_layers
        done = self._saved()
        chunk = self._chunk()
        first = 1 + max((group.layer for group in done.alone), default=-1)
        if first:
            progress.note(f"resuming the measurement at layer {first + 1} of {layers}")
        progress.start("sensitivity", "measuring what pruning costs", self.work(), "blocks")
        progress.advance("sensitivity", self.work() - self.work(first) if first else 0)
        with torch.no_grad():
            if not done.whole:
                done = Sensitivity(done.alone, self._whole(progress))
                self._save(done)
            states = self._ground.blocks.embed(self._ground.tokens, BATCH)
            for layer in range(first):
                self._dense(layer, states)
            for start in range(first, layers, chunk):
                found = self._alone(start, min(start + chunk, layers), states, progress)
                done = Sensitivity({**done.alone, **found}, done.whole)
                self._save(done)
        progress.finish("sensitivity")
        return done

    def work(self, first: int = 0) -> int:
        """Forwards of a block on the measured tokens, from the groups of layer `first` on; the
        whole models come before."""
        layers = self._spec.num_layers
        each = len(self._ground.alone) * len(groups_of(self._spec)) // layers
        alone = each * sum(layers - layer for layer in range(first, layers))
        return alone + (0 if first else len(self._ground.whole) * layers)

    def _saved(self) -> Sensitivity:
        try:
            found = from_json(self._file.read_bytes(), self._key)
        except OSError:
            found = None
        return found or Sensitivity({}, {})

    def _save(self, done: Sensitivity) -> None:
        beside = self._file.with_suffix(".new")
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(to_json(self._key, done))
        beside.replace(self._file)

    def _chunk(self) -> int:
        """Layers whose models are under way together."""
        ground = self._ground
        length = ground.tokens.shape[1]
        size: int = ground.blocks.dtype.itemsize
        states: int = ground.measured * length * self._spec.hidden_size * size
        groups = len(groups_of(self._spec)) // self._spec.num_layers
        return max(1, _STATES_BYTES // (states * groups * len(ground.alone)))

    def _dense(self, layer: int, states: torch.Tensor) -> None:
        self._ground.blocks.load(layer)
        self._forward(layer)(states)
        self._ground.blocks.unload(layer)

    def _forward(self, layer: int) -> Callable[[torch.Tensor], None]:
        run = partial(self._ground.blocks.run, layer)
        return lambda states: advance(states, BATCH, run)

    def _whole(self, progress: Progress) -> dict[str, Divergence]:
        """Every matrix pruned, by the statistics of the dense model."""
        ground, blocks = self._ground, self._ground.blocks
        states = blocks.embed(ground.tokens, BATCH)
        pruned = [states[: ground.measured].clone() for _ in ground.whole]
        everything = {linear.name for linear in self._spec.linears}
        for layer in range(self._spec.num_layers):
            blocks.load(layer)
            statistics = blocks.collect(layer, states, BATCH, ground.method.needs)
            for pattern, under_way in zip(ground.whole, pruned, strict=True):
                with _Without(ground, layer, everything, statistics, pattern):
                    self._forward(layer)(under_way)
                progress.advance("sensitivity")
            self._forward(layer)(states)
            blocks.unload(layer)
        found = self._divergences(states[: ground.measured], pruned, every=1)
        return dict(zip(map(str, ground.whole), found, strict=True))

    def _alone(
        self, start: int, stop: int, states: torch.Tensor, progress: Progress
    ) -> dict[Group, dict[str, Divergence]]:
        """Of the groups in layers `start` to `stop`. states: dense inputs of layer `start`,
        left as those of `stop`."""
        ground, blocks = self._ground, self._ground.blocks
        under_way: dict[tuple[Group, str], torch.Tensor] = {}
        dense = states[: ground.measured].clone()
        for layer in range(start, self._spec.num_layers):
            blocks.load(layer)
            forward = self._forward(layer)
            for hidden in under_way.values():
                forward(hidden)
                progress.advance("sensitivity")
            if layer < stop:
                statistics = blocks.collect(layer, states, BATCH, ground.method.needs)
                for group in (one for one in groups_of(self._spec) if one.layer == layer):
                    names = {lin.name for lin in self._spec.linears if lin.role in group.roles}
                    for pattern in ground.alone:
                        hidden = dense.clone()
                        with _Without(ground, layer, names, statistics, pattern):
                            forward(hidden)
                        under_way[group, str(pattern)] = hidden
                        progress.advance("sensitivity")
                forward(states)
            forward(dense)
            blocks.unload(layer)
        found = self._divergences(dense, list(under_way.values()), every=EVERY)
        result: dict[Group, dict[str, Divergence]] = {}
        for (group, pattern_name), divergence in zip(under_way, found, strict=True):
            result.setdefault(group, {})[pattern_name] = divergence
        return result

    def _divergences(
        self, dense: torch.Tensor, others: Sequence[torch.Tensor], every: int
    ) -> list[Divergence]:
        blocks = self._ground.blocks

        def chosen(states: torch.Tensor) -> torch.Tensor:
            return states.reshape(-1, states.shape[-1])[every - 1 :: every]

        return divergences(
            blocks.reader, chosen(dense), [chosen(o) for o in others], blocks.device, blocks.dtype
        )


class _Without:
    """A loaded block with some of its matrices pruned, while the context lasts."""

    def __init__(
        self,
        ground: Ground,
        layer: int,
        names: set[str],
        statistics: Mapping[str, InputStatistics],
        pattern: Pattern,
    ) -> None:
        self._blocks, self._layer = ground.blocks, layer
        self._pruned: dict[str, Pruned] = {
            linear.name: ground.method.prune(
                ground.blocks.weight(layer, linear.name), statistics[linear.group], pattern
            )
            for linear in ground.blocks.spec.linears
            if linear.name in names
        }
        self._before: dict[str, torch.Tensor] = {}

    def __enter__(self) -> None:
        self._before = {
            name: self._blocks.weight(self._layer, name).clone() for name in self._pruned
        }
        self._blocks.prune(self._layer, self._pruned, {})

    def __exit__(self, *_: object) -> None:
        for name, weight in self._before.items():
            self._blocks.weight(self._layer, name).copy_(weight)
