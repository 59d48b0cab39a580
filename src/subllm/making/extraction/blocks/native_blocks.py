"""A model's blocks on the native engine: int8 products, no torch module.

A dense block runs with its matrices packed to int8 (symmetric, a scale per 128 inputs and
row) and activations rounded likewise, a pruned one as it is shipped. So statistics are a
little off those of the base's own precision, and cost a third of float32 products where
the processor multiplies int8 (VNNI) but has no matrix unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from subllm.engine.backends.native.weights import NamedTensors
from subllm.errors import ExtractionError
from subllm.kernels import native
from subllm.kernels.products.ops import Matrix, Pool, multiply_all
from subllm.kernels.sparsity.int4 import Int4Rows
from subllm.kernels.sparsity.layout import Values
from subllm.kernels.sparsity.packing import PackedTensor, pack
from subllm.making.extraction.blocks.embedding import used_rows
from subllm.making.extraction.blocks.protocol import NO_VECTORS, EmbeddingRows, Floats, Scores
from subllm.making.extraction.shared import DENSE, pack_in_slices
from subllm.making.pruning.method import InputStatistics, Need, Pruned
from subllm.models.arch.spec import ArchSpec
from subllm.models.weights.reader import WeightReader

NEEDS = frozenset({Need.SQUARE_SUMS})
"""What the native engine can collect."""

VALUES: Values = "int8"
"""What a dense block's matrices are packed to."""
_GROUPS = {"attn_in": "attention", "o_in": "output", "mlp_in": "mlp", "down_in": "down"}
# Tokens whose logits are held at once: 78 MB at 152k tokens of vocabulary.
_SCORED = 128


class NativeBlocks:
    """Implements `Blocks`; hidden states are float32. Memory: one block, dequantized while
    it is packed. `exact` keeps activations as float32: slow, a reference."""

    collects = NEEDS

    def __init__(self, reader: WeightReader, threads: int, *, exact: bool = False) -> None:
        self.reader = reader
        self.spec = reader.spec
        self._threads = threads
        self._exact = exact
        self._packed: Mapping[str, PackedTensor] = {}
        self._vectors = NO_VECTORS
        self._block: Any = None
        self._head: Matrix | None = None

    def embed(
        self, tokens: npt.NDArray[np.int32], batch: int, rows: EmbeddingRows | None = None
    ) -> torch.Tensor:
        """See `Blocks.embed`."""
        table, compact = used_rows(self.reader, tokens, rows)
        if self.spec.embed_scale != 1.0:
            table = table * np.float32(self.spec.embed_scale)
        return torch.from_numpy(table[compact])

    def load(self, layer: int) -> None:
        """See `Blocks.load`."""
        self._use(
            layer,
            {
                linear.name: pack(self.source(layer, linear.name), None, DENSE, VALUES)
                for linear in self.spec.linears
            },
        )

    def _use(self, layer: int, packed: Mapping[str, PackedTensor]) -> None:
        alone = replace(self.spec, num_layers=1, sliding_layers=(self.spec.sliding_layers[layer],))
        tensors = NamedTensors(_BlockTensors(self.reader, layer, packed, self._vectors))
        try:
            self._block = native.core().Block(
                alone.to_dict(), tensors.layer(layer), self._threads, self._exact
            )
        except (ValueError, RuntimeError) as error:
            raise ExtractionError(f"the native engine refused block {layer}: {error}") from error
        self._packed = packed

    def unload(self, layer: int) -> None:
        """See `Blocks.unload`."""
        self._block, self._packed, self._vectors = None, {}, NO_VECTORS
        self.reader.release()

    def weight(self, layer: int, name: str) -> torch.Tensor:
        """See `Blocks.weight`: the base's own precision."""
        return torch.from_numpy(self.source(layer, name))

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
        assert needs <= NEEDS, needs
        sums = {
            linear.group: np.zeros(linear.in_features, np.float64) for linear in self.spec.linears
        }
        by_role = {_GROUPS[group]: of for group, of in sums.items()}
        for start in range(0, len(states), batch):
            self._block.collect(states[start : start + batch].contiguous().numpy(), **by_role)
        tokens = states.shape[0] * states.shape[1]
        return {
            group: InputStatistics(tokens, {Need.SQUARE_SUMS: torch.from_numpy(of)})
            for group, of in sums.items()
        }

    def prune(
        self,
        layer: int,
        matrices: Mapping[str, Pruned],
        packed: Mapping[str, PackedTensor],
        vectors: Mapping[str, Floats] = NO_VECTORS,
    ) -> None:
        """See `Blocks.prune`: here a pruned block is the shipped one."""
        self._vectors = vectors
        self.ship(layer, packed)

    def ship(self, layer: int, packed: Mapping[str, PackedTensor]) -> None:
        """See `Blocks.ship`."""
        if packed is not self._packed:
            self._use(layer, packed)

    def run(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """See `Blocks.run`."""
        states = hidden.to(torch.float32, copy=True).contiguous()
        self._block.run(states.numpy())
        return states

    def score(
        self,
        hidden: torch.Tensor,
        targets: torch.Tensor,
        head: PackedTensor | None,
        vectors: Mapping[str, Floats] = NO_VECTORS,
    ) -> Scores:
        """See `Blocks.score`; the base's own head is taken as int8."""
        matrix = Matrix(head) if head is not None else self._own_head()
        pool = Pool(self._threads)
        states = final_norm(self.reader, hidden, vectors)
        result = torch.empty(len(targets))
        choices = torch.empty(len(targets), dtype=torch.int64)
        out = np.empty((_SCORED, self.spec.vocab_size), np.float32)
        for start in range(0, len(targets), _SCORED):
            part = states[start : start + _SCORED].contiguous()
            multiply_all(pool, [matrix], part.numpy(), [out[: len(part)]], exact=self._exact)
            logits = torch.from_numpy(out[: len(part)])
            if self.spec.final_softcap is not None:
                logits = torch.tanh(logits / self.spec.final_softcap) * self.spec.final_softcap
            gold = targets[start : start + len(part), None]
            chosen = logits.gather(1, gold)[:, 0]
            result[start : start + len(part)] = chosen - logits.logsumexp(-1)
            choices[start : start + len(part)] = logits.argmax(-1)
        return Scores(result, choices)

    def _own_head(self) -> Matrix:
        if self._head is None:
            self._head = Matrix(pack_in_slices(self.reader, self.spec.head_name, VALUES))
            self.reader.release()
        return self._head


class _BlockTensors:
    """A `PackedWeightSource` of one block: packed matrices, vectors from the base but for
    `vectors`."""

    def __init__(
        self,
        reader: WeightReader,
        layer: int,
        packed: Mapping[str, PackedTensor],
        vectors: Mapping[str, Floats],
    ) -> None:
        self._reader, self._vectors = reader, vectors
        self._packed = {
            f"{reader.spec.block_prefix(layer)}{name}.weight": tensor
            for name, tensor in packed.items()
        }

    @property
    def spec(self) -> ArchSpec:
        return self._reader.spec

    def tensor(self, name: str) -> PackedTensor:
        return self._packed[name]

    def vector(self, name: str) -> npt.NDArray[np.float32]:
        found = self._vectors.get(name)
        return self._reader.read(name) if found is None else found.copy()


def final_norm(
    reader: WeightReader, hidden: torch.Tensor, vectors: Mapping[str, Floats] = NO_VECTORS
) -> torch.Tensor:
    """The norm before the head, in float32, [n, hidden_size]; vectors as in `Blocks.score`."""
    spec = reader.spec

    def read(name: str) -> torch.Tensor:
        return torch.from_numpy(vectors[name].copy() if name in vectors else reader.read(name))

    weight = read(spec.final_norm_name) + spec.norm_offset
    if spec.norm == "rmsnorm":
        scale = torch.rsqrt(hidden.square().mean(-1, keepdim=True) + spec.norm_eps)
        return hidden * scale * weight
    bias = None
    if spec.norm_bias:
        bias = read(spec.final_norm_name.removesuffix("weight") + "bias")
    return torch.nn.functional.layer_norm(hidden, (spec.hidden_size,), weight, bias, spec.norm_eps)
