"""A transformers model on empty weights, of which one block at a time is real.

The model's own forward runs once per batch shape (`recovery.decoder`): what it calls its
blocks with is the same for all batches of a shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from subllm.kernels.sparsity.int4 import Int4Rows
from subllm.kernels.sparsity.packing import PackedTensor, unpack, unpack_rows
from subllm.making.extraction.blocks.ahead import ReadAhead
from subllm.making.extraction.blocks.embedding import used_rows
from subllm.making.extraction.blocks.head_loss import HeadLoss
from subllm.making.extraction.blocks.protocol import NO_VECTORS, EmbeddingRows, Floats, Scores
from subllm.making.extraction.blocks.tap import ACCUMULATORS, Tap
from subllm.making.pruning.method import InputStatistics, Need, Pruned
from subllm.making.recovery.decoder import (
    Call,
    Recorder,
    empty_decoder,
    load,
    load_final_norm,
    replace_vectors,
)
from subllm.models.weights.reader import WeightReader

BatchShape = tuple[int, int]  # sequences, tokens

# Rows of the head multiplied at a time: 16,384 x 4,096 in float32 is 256 MB at most.
_HEAD_ROWS = 16384


class TorchBlocks:
    """Implements `Blocks` with transformers' own modules, on `device` in `dtype`.

    Memory: one block, plus the embedding rows in use while `embed` runs. Raises
    ExtractionError where transformers does not know the architecture.
    """

    collects = frozenset(ACCUMULATORS)

    def __init__(self, reader: WeightReader, device: torch.device, dtype: torch.dtype) -> None:
        self.reader = reader
        self.spec = reader.spec
        self.device = device
        self.dtype = dtype
        self._decoder = empty_decoder(reader, device, dtype)
        self._blocks = list(self._decoder.layers)
        self._calls: dict[BatchShape, list[Call]] = {}
        # Where another device computes, the processor is free to read meanwhile.
        self._ahead = self._reading_ahead() if device.type != "cpu" else None

    def embed(
        self, tokens: npt.NDArray[np.int32], batch: int, rows: EmbeddingRows | None = None
    ) -> torch.Tensor:
        """See `Blocks.embed`; the states are of `dtype`."""
        rows_in_use, indices = used_rows(self.reader, tokens, rows)
        table = torch.from_numpy(rows_in_use).to(self.device, self.dtype)
        compact = torch.from_numpy(indices)
        samples, length = tokens.shape
        out = torch.empty(samples, length, self.spec.hidden_size, dtype=self.dtype)
        with self._recording(table) as run:
            for start in range(0, samples, batch):
                chunk = compact[start : start + batch].to(self.device)
                first, calls = run(chunk)
                out[start : start + len(chunk)] = first
                self._calls.setdefault((len(chunk), length), calls)
        return out

    @contextmanager
    def _recording(
        self, table: torch.Tensor
    ) -> Iterator[Callable[[torch.Tensor], tuple[torch.Tensor, list[Call]]]]:
        """The decoder with `table` as its embedding and recorders for blocks."""
        decoder, embedding = self._decoder, self._decoder.embed_tokens
        final_norm = decoder.norm
        before = embedding.weight, embedding.padding_idx
        embedding.weight = nn.Parameter(table, requires_grad=False)
        embedding.padding_idx = None  # ids are compacted, it would point elsewhere
        decoder.norm = nn.Identity()

        def run(ids: torch.Tensor) -> tuple[torch.Tensor, list[Call]]:
            calls: list[Call] = []
            decoder.layers = nn.ModuleList(Recorder(b, calls) for b in self._blocks)
            with torch.no_grad():  # not inference mode: a recovery may differentiate
                out = decoder(input_ids=ids, use_cache=False)
            return out.last_hidden_state, calls

        try:
            yield run
        finally:
            decoder.layers = nn.ModuleList(self._blocks)
            decoder.norm = final_norm
            embedding.weight, embedding.padding_idx = before

    def load(self, layer: int) -> None:
        """See `Blocks.load`."""
        block = self._blocks[layer]
        prefix = self.spec.block_prefix(layer)
        if self._ahead is not None:
            found = self._ahead.block(layer)
            load(block, lambda name: found.pop(prefix + name), self.device, self.dtype)
        else:
            load(block, lambda name: self.reader.read(prefix + name), self.device, self.dtype)

    def _reading_ahead(self) -> ReadAhead:
        def names(layer: int) -> list[str]:
            prefix = self.spec.block_prefix(layer)
            return [prefix + name for name, _ in self._blocks[layer].named_parameters()]

        return ReadAhead(self.reader.read, names, len(self._blocks))

    def unload(self, layer: int) -> None:
        """See `Blocks.unload`."""
        self._blocks[layer].to("meta")
        self.reader.release()

    def weight(self, layer: int, name: str) -> torch.Tensor:
        """See `Blocks.weight`."""
        parameter: nn.Parameter = self._blocks[layer].get_parameter(f"{name}.weight")
        return parameter.data

    def source(self, layer: int, name: str) -> npt.NDArray[np.float32]:
        """See `Blocks.source`."""
        return self.reader.read(f"{self.spec.block_prefix(layer)}{name}.weight")

    def coded(self, layer: int, name: str) -> Int4Rows | None:
        """See `Blocks.coded`."""
        return self.reader.int4(f"{self.spec.block_prefix(layer)}{name}.weight")

    def collect(
        self, layer: int, states: torch.Tensor, batch: int, needs: frozenset[Need]
    ) -> dict[str, InputStatistics]:
        """See `Blocks.collect`; the block runs no further than its last matrix."""
        with Tap(self.spec, self._blocks[layer], needs) as tap:
            for start in range(0, len(states), batch):
                tap.feed(partial(self.run, layer, states[start : start + batch]))
            return tap.statistics()

    def prune(
        self,
        layer: int,
        matrices: Mapping[str, Pruned],
        packed: Mapping[str, PackedTensor],
        vectors: Mapping[str, Floats] = NO_VECTORS,
    ) -> None:
        """See `Blocks.prune`: masked, not yet quantised."""
        replace_vectors(self._blocks[layer], self.spec.block_prefix(layer), vectors)
        for name, pruned in matrices.items():
            weight = self.weight(layer, name)
            if pruned.weight is not None:
                weight.copy_(pruned.weight)
            weight.mul_(pruned.mask)

    def ship(self, layer: int, packed: Mapping[str, PackedTensor]) -> None:
        """See `Blocks.ship`."""
        for name, tensor in packed.items():
            self.weight(layer, name).copy_(torch.from_numpy(unpack(tensor)))

    def run(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """See `Blocks.run`; the result is on the device."""
        call = self._calls[(hidden.shape[0], hidden.shape[1])][layer]
        out = self._blocks[layer](hidden.to(self.device), *call.args, **call.kwargs)
        result: torch.Tensor = out[0] if isinstance(out, tuple) else out
        return result

    def substituted(
        self, layer: int, hidden: torch.Tensor, weights: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """As `run`, with `weights` in place of matrices of these names; to differentiate by
        them and by `hidden`, which is on the device."""
        call = self._calls[(hidden.shape[0], hidden.shape[1])][layer]
        named = {f"{name}.weight": weight for name, weight in weights.items()}
        out = torch.func.functional_call(
            self._blocks[layer], named, (hidden, *call.args), call.kwargs
        )
        result: torch.Tensor = out[0] if isinstance(out, tuple) else out
        return result

    def head_loss(self) -> HeadLoss:
        """The next-token loss of what the last block makes."""
        return HeadLoss(self.reader, self._final_norm(), self.device, self.dtype)

    def score(
        self,
        hidden: torch.Tensor,
        targets: torch.Tensor,
        head: PackedTensor | None,
        vectors: Mapping[str, Floats] = NO_VECTORS,
    ) -> Scores:
        """See `Blocks.score`. The head is multiplied in slices and the log-sum-exp kept
        running, in float32."""
        spec = self.spec
        norm = self._final_norm()
        replace_vectors(norm, spec.final_norm_name.removesuffix("weight"), vectors)
        states = norm(hidden.to(self.device))
        gold = targets.to(self.device)
        log_sum = torch.full((len(states),), -math.inf, device=self.device)
        gold_logit = torch.zeros(len(states), device=self.device)
        best = torch.full((len(states),), -math.inf, device=self.device)
        choices = torch.zeros(len(states), dtype=torch.int64, device=self.device)
        for start in range(0, spec.vocab_size, _HEAD_ROWS):
            stop = min(start + _HEAD_ROWS, spec.vocab_size)
            indices = np.arange(start, stop, dtype=np.int64)
            if head is None:
                values = self.reader.rows(spec.head_name, indices)
            else:
                values = unpack_rows(head, indices)
            rows = torch.from_numpy(values).to(self.device, states.dtype)
            # Tokens in slices too: logits of all would outweigh the head slice.
            for first in range(0, len(states), 1024):
                piece = slice(first, first + 1024)
                logits = (states[piece] @ rows.T).float()
                if spec.final_softcap is not None:
                    logits = torch.tanh(logits / spec.final_softcap) * spec.final_softcap
                log_sum[piece] = torch.logaddexp(log_sum[piece], logits.logsumexp(-1))
                highest, place = logits.max(-1)
                better = highest > best[piece]  # the first of equals, as argmax
                best[piece] = torch.where(better, highest, best[piece])
                choices[piece] = torch.where(better, place + start, choices[piece])
                here = (gold[piece] >= start) & (gold[piece] < stop)
                index = (gold[piece] - start).clamp(0, stop - start - 1)
                picked = logits.gather(1, index[:, None])[:, 0]
                gold_logit[piece] = torch.where(here, picked, gold_logit[piece])
        if head is None:
            self.reader.release()
        return Scores((gold_logit - log_sum).cpu(), choices.cpu())

    def _final_norm(self) -> nn.Module:
        norm: nn.Module = self._decoder.norm
        load_final_norm(norm, self.reader, self.device, self.dtype)
        return norm
