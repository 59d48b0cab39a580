"""A dense base's blocks in int8, for what it answers about text to learn from.

Where a processor multiplies integers several times as fast as float32 and has no bfloat16, asking
the teacher takes a third of a recovery and more. What its answers lose by int8 (a scale per 128
inputs, activations rounded likewise) is little beside what a student is from them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch

from subllm import native
from subllm.arch.spec import ArchSpec
from subllm.errors import BackendError
from subllm.kernels.ops import Matrix, Pool, multiply_all
from subllm.recovery.compute import MEASURED_TOKENS, fastest
from subllm.recovery.compute import product_rate as float_rate
from subllm.recovery.rows import RecoveryText
from subllm.runtime.backends.native.block import open_block
from subllm.sparsity.packing import pack
from subllm.sparsity.pattern import Pattern
from subllm.weights.reader import WeightReader

NAME = "int8"
"""Of this way to compute, beside `compute.DTYPES`."""
_DENSE = Pattern.parse("dense")
_WORTH = 1.5  # times as fast as float32


def worth_it(compute: str, spec: ArchSpec, device: torch.device) -> bool:
    """Whether a recovery that computes so asks its teacher in int8: where products in it are
    measured to be as much faster as makes up for the rounding."""
    if device.type != "cpu" or compute != "float32":
        return False
    try:
        native.core()
    except BackendError:
        return False
    return product_rate(spec) > _WORTH * float_rate(spec, compute, device)


def product_rate(spec: ArchSpec) -> float:
    """As `compute.product_rate`, of the native engine's int8 products."""
    inner, outer = spec.hidden_size, spec.intermediate_size
    matrix = Matrix(pack(np.ones((outer, inner), np.float32), None, _DENSE, "int8"))
    pool = Pool(torch.get_num_threads())
    x = np.ones((MEASURED_TOKENS, inner), np.float32)
    out = np.empty((MEASURED_TOKENS, outer), np.float32)
    seconds = fastest(lambda: multiply_all(pool, [matrix], x, [out]))
    return 2.0 * MEASURED_TOKENS * inner * outer / seconds


class Int8Blocks:
    """One block in memory at a time."""

    def __init__(self, reader: WeightReader, threads: int) -> None:
        self._reader, self._threads = reader, threads
        self._block: Any = None

    def load(self, layer: int) -> None:
        """Raises ExtractionError where the engine refuses the block."""
        reader, prefix = self._reader, self._reader.spec.block_prefix(layer)
        packed = {
            linear.name: pack(reader.read(f"{prefix}{linear.name}.weight"), None, _DENSE, "int8")
            for linear in reader.spec.linears
        }
        self._block = open_block(reader, layer, packed, self._threads)

    def unload(self) -> None:
        self._block = None
        self._reader.release()

    def run(self, hidden: torch.Tensor, text: RecoveryText, rows: list[int]) -> torch.Tensor:
        """The loaded block on hidden states of rows of a text, float32 [rows, length, hidden]:
        each document by itself, from position 0."""
        out = torch.empty_like(hidden)
        for states, result, row in zip(hidden, out, rows, strict=True):
            begins = [*np.flatnonzero(text.starts[row]).tolist(), text.length]
            for begin, end in pairwise(begins):
                document = states[None, begin:end].to(torch.float32, copy=True).contiguous()
                self._block.run(document.numpy())
                result[begin:end] = document[0]
        return out
