"""The screening plane of a head: a copy of its rows at 2 bits a weight that ranks all tokens.

Beside a packed head [rows, cols] in the same file, made from what is packed there:

    codes    uint8 [ceil(rows / 16), ceil(cols / 16) + 2, 64]: tiles of 16 rows, units of 16
             columns. A code stands for (2 * code - 3) * step of its row, code 0 to 3. That of
             row 4 * k + j and column i of a unit is in bits 2 * k and 2 * k + 1 of byte
             16 * j + i. The last two units hold 16 columns once more, at twice the step and at
             half of it: such a weight is the sum of three codes. Missing rows and columns
             have code 0.
    steps    float32 [16 * tiles], 0 for a missing row
    columns  int32 [16]: which columns those are, -1 where there are fewer

A row's step is the fixed point of repeated least squares: given the step, weights of magnitude
above 2 * step are coded as 3 steps, others as 1; given the codes, the best step is known. The
columns with three codes are those that fit worst with one; a few have weights far above the rest
and states that lean on them, such as those of a first token. All costs 2 + (64 + 32) / cols bits
a weight, about a quarter of int8. A scale per 128 columns as int8 has would rank hardly better
(the noise of a logit is 1 % less) and costs sums that are scaled seven times as often.

`digest` names the head that the plane was made of (`head_digest`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from subllm.errors import LayoutError
from subllm.kernels import native
from subllm.kernels.sparsity.layout import aligned_empty, elements
from subllm.kernels.sparsity.packing import PackedTensor, core_planes

SCREEN_ROWS = 16
SCREEN_COLS = 16
UNIT_BYTES = 64
LEAST_ROWS = 16_384
"""Smaller vocabularies are left without a plane: their head is read fast enough."""

_SAMPLE = 1 << 12  # bytes of each _STRIDE that a digest reads of the values
_STRIDE = 1 << 18


@dataclass(frozen=True, eq=False)
class Screen:
    """Planes as above; they may be read-only mapped memory. shape is that of the head."""

    shape: tuple[int, int]
    codes: npt.NDArray[np.uint8]
    steps: npt.NDArray[np.float32]
    columns: npt.NDArray[np.int32]
    digest: str

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.steps.nbytes + self.columns.nbytes


Shapes = dict[str, tuple[type[np.generic], tuple[int, ...]]]


def screen_shapes(shape: tuple[int, int]) -> Shapes:
    """dtype and shape of every plane, by its name in a packed file."""
    tiles, units = -(-shape[0] // SCREEN_ROWS), -(-shape[1] // SCREEN_COLS)
    return {
        "codes": (np.uint8, (tiles, units + 2, UNIT_BYTES)),
        "steps": (np.float32, (tiles * SCREEN_ROWS,)),
        "columns": (np.int32, (SCREEN_COLS,)),
    }


def build_screen(head: PackedTensor, *, threads: int = 0) -> Screen:
    """The plane of a packed head; the same on every machine. Raises LayoutError for a head
    that is damaged."""
    planes = {
        name: aligned_empty(elements(shape), dtype).reshape(shape)
        for name, (dtype, shape) in screen_shapes(head.shape).items()
    }
    try:
        native.core().build_screen(*head.shape, *core_planes(head), *planes.values(), threads)
    except ValueError as error:
        raise LayoutError(f"a packed head is damaged: {error}") from error
    return Screen(head.shape, **cast("dict[str, Any]", planes), digest=head_digest(head))


def head_digest(head: PackedTensor) -> str:
    """`sha256-<hex>` of a packed head: its form, all scales and 1 in 64 bytes of the values,
    in pieces of 4 kB; quick enough to be checked whenever a model is loaded."""
    found = hashlib.sha256(f"{head.shape} {head.pattern} {head.values} {head.data.size}".encode())
    for plane in (head.scales, head.subscales):
        if plane is not None:
            found.update(np.ascontiguousarray(plane).view(np.uint8).data)
    for start in range(0, head.data.size, _STRIDE):
        found.update(head.data[start : start + _SAMPLE].data)
    return f"sha256-{found.hexdigest()}"


def check_screen(screen: Screen, head: PackedTensor, name: str) -> None:
    """Raises LayoutError where the plane was not made of this head; `name` is the head's."""
    if screen.shape != head.shape or screen.digest != head_digest(head):
        raise LayoutError(
            f"the screening plane of {name} belongs to another head; run 'subllm verify', then "
            "extract or add the model again, or set SUBLLM_SCREENED_HEAD=off"
        )


def verify_screen(screen: Screen, head: PackedTensor) -> None:
    """Makes the plane again. Raises LayoutError unless it is the same."""
    fresh = build_screen(head)
    same = fresh.digest == screen.digest and all(
        np.array_equal(getattr(fresh, name), getattr(screen, name))
        for name in screen_shapes(head.shape)
    )
    if not same:
        raise LayoutError("its screening plane is not the one of its values; the file is damaged")
