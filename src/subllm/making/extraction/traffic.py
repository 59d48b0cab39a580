"""Bytes of weights that decoding one token will read, before there is a packed file."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from subllm.kernels import native
from subllm.kernels.sparsity.layout import BITS, TILE_ROWS, UNITS, Geometry, Values, elements
from subllm.kernels.sparsity.pattern import Pattern
from subllm.kernels.sparsity.screen import LEAST_ROWS, screen_shapes
from subllm.making.extraction.quantiser import stored_as
from subllm.making.extraction.shared import DENSE
from subllm.making.pruning.allocation import Allocation
from subllm.models.arch.spec import ArchSpec, LinearSpec


def matrix_bytes(rows: int, cols: int, pattern: Pattern, values: Values) -> int:
    """Of all planes of a packed matrix. Where runs vary in length (unstructured, N:32), those
    of a mask that keeps as many everywhere."""
    geometry = Geometry(rows, cols, pattern, values)
    if geometry.slots:
        data = geometry.values_bytes()
    else:
        tile = TILE_ROWS * pattern.kept_per_row(cols) * BITS[values] / 8
        ends = geometry.col_blocks * UNITS / 4 if values == "int4" else 0  # runs of odd length
        tiles = geometry.row_tiles * math.ceil((tile + ends) / 64)
        data = (tiles + 1) * 64 + 4 * elements(geometry.offsets_shape)
    return (
        8 * elements(geometry.mask_shape)
        + data
        + 2 * elements(geometry.scales_shape)
        + elements(geometry.subscales_shape)
    )


def linears_of(spec: ArchSpec) -> dict[str, LinearSpec]:
    """All prunable matrices by full name."""
    return {
        f"{spec.block_prefix(layer)}{linear.name}.weight": linear
        for layer in range(spec.num_layers)
        for linear in spec.linears
    }


def block_bytes(spec: ArchSpec, allocation: Allocation, values: Values) -> int:
    """Of all block matrices."""
    return sum(
        matrix_bytes(
            linear.out_features, linear.in_features, allocation.of(name), stored_as(linear, values)
        )
        for name, linear in linears_of(spec).items()
    )


def shared_bytes(spec: ArchSpec, vectors: Mapping[str, int], head: Values) -> int:
    """Of what is not in the blocks' matrices. vectors: elements of norms and biases, by name."""
    whole = matrix_bytes(spec.vocab_size, spec.hidden_size, DENSE, head)
    total = whole
    if spec.vocab_size >= LEAST_ROWS:  # its screening plane and the tiles of the candidates
        tiles = -(-spec.vocab_size // TILE_ROWS)
        planes = screen_shapes((spec.vocab_size, spec.hidden_size)).values()
        screen = sum(np.dtype(kind).itemsize * elements(shape) for kind, shape in planes)
        total = screen + whole * min(int(native.core().SCREEN_CANDIDATES), tiles) // tiles
    if not spec.tied_head:
        total += -(-whole // spec.vocab_size)
    return total + 4 * sum(vectors.values())
