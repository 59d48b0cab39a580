"""int4 in the loop: kept values are rounded as they will be packed, and learn under that.

The model computes with masters rounded to the packer's own grid, and gradients go to the masters
as if nothing had been rounded (straight through: Bengio et al., arXiv 1308.3432). A grid starts
where the packer would have left it, scales and codes that make up for one another's errors
(`pruning.feedback`), and the masters start at what those codes were rounded from. So at first
the model is the one that packing alone would have made; from there on codes change where that
lowers the loss. What was pruned has no master, and stays 0.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from subllm.kernels.sparsity.int4 import steps
from subllm.kernels.sparsity.layout import SUB, Geometry
from subllm.kernels.sparsity.packing import PackedTensor, pack, pack_codes
from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.pruning.feedback import DAMPING, Feedback, round_with_feedback, slabs_of
from subllm.making.pruning.method import HESSIAN_COLUMNS

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

_PIECE, _PIECE_GPU = 1 << 16, 1 << 22  # values that are rounded at a time: they stay in a cache


class Products:
    """What the columns of one input have to do with each other: sums of x x^T over tokens,
    within slabs of HESSIAN_COLUMNS."""

    def __init__(self, columns: int, device: torch.device) -> None:
        self._columns = columns
        slabs = -(-columns // HESSIAN_COLUMNS)
        self.sums = torch.zeros(slabs, HESSIAN_COLUMNS, HESSIAN_COLUMNS, device=device)

    def add(self, inputs: torch.Tensor) -> None:
        """inputs: [..., columns]."""
        rows = inputs.reshape(-1, self._columns)
        for index, sums in enumerate(self.sums):
            start = index * HESSIAN_COLUMNS
            slab = rows[:, start : start + HESSIAN_COLUMNS].float()
            width = slab.shape[1]
            sums[:width, :width].addmm_(slab.T, slab)

    def importance(self) -> Floats:
        """Mean squares of the columns, damped, up to a factor: float32 [columns]."""
        squares = self.sums.diagonal(dim1=1, dim2=2).flatten()[: self._columns]
        mean = squares.mean()
        if not mean > 0:
            return np.ones(self._columns, np.float32)
        found: Floats = (squares / mean + DAMPING).cpu().numpy()
        return found

    @cached_property
    def slabs(self) -> list[Feedback]:
        """What errors of rounding are made up for by. Of all inputs: nothing is added after."""
        return slabs_of(self.sums, self._columns)


class Grid:
    """What int4 lets one matrix [out, in] be under its mask.

    scales, subscales  of all values, as `PackedTensor` has them
    importance         float32 [in]: what errors of a column count for when scales are fitted
    """

    def __init__(
        self, shape: tuple[int, int], pattern: str, device: torch.device, *, across: bool
    ) -> None:
        """Empty. across: values are those of the transposed matrix."""
        self._shape, self._pattern, self._across = shape, pattern, across
        geometry = Geometry(*shape, Pattern.parse(pattern), "int4")
        assert geometry.scales_shape and geometry.subscales_shape
        self.scales = torch.zeros(geometry.scales_shape, dtype=torch.float16)
        self.subscales = torch.zeros(geometry.subscales_shape, dtype=torch.uint8)
        self.importance = torch.ones(shape[1])
        self._device = device
        self._steps = torch.zeros(0)

    def states(self) -> dict[str, torch.Tensor]:
        """What a saved state holds of it; `refresh` after it was loaded."""
        return {
            "scales": self.scales, "subscales": self.subscales, "importance": self.importance,
        }  # fmt: skip

    def fit(self, weights: Floats, mask: Bools) -> None:
        """Scales that suit these weights [out, in]."""
        found = pack(weights, mask, self._pattern, "int4", importance=self.importance.numpy())
        self._take(found)

    def begin(self, weights: Floats, mask: Bools, products: Products) -> Floats:
        """Scales and codes as the packer would choose them; returns what the codes were rounded
        from, [out, in], 0 outside the mask."""
        self.importance = torch.from_numpy(products.importance())
        wanted = np.zeros(weights.shape, np.float32)
        found = pack(weights, mask, self._pattern, "int4", importance=self.importance.numpy())
        self._take(found)
        round_with_feedback(found, weights, mask, products.slabs, wanted)
        return wanted

    def _take(self, packed: PackedTensor) -> None:
        assert packed.scales is not None and packed.subscales is not None
        self.scales = torch.from_numpy(np.array(packed.scales))
        self.subscales = torch.from_numpy(np.array(packed.subscales))
        self.refresh()

    def refresh(self) -> None:
        """After scales were replaced."""
        found = self._step_of()
        self._steps = torch.from_numpy(np.ascontiguousarray(found.T if self._across else found))
        self._steps = self._steps.to(self._device).flatten()

    def _step_of(self) -> Floats:
        """[out, ceil(in / 32)]"""
        bare = PackedTensor(
            self._shape, self._pattern, "int4", None, np.zeros(0, np.uint8), self.scales.numpy(),
            None, self.subscales.numpy(),
        )  # fmt: skip
        found: Floats = steps(bare)[0]
        return found

    def round(self, values: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
        """float32 values at flat places int64 of the matrix (transposed, where it is `across`),
        all of them for None."""
        result = torch.empty_like(values)
        rows, columns = self._shape
        piece = _PIECE if values.device.type == "cpu" else _PIECE_GPU
        for start in range(0, len(values), piece):
            part = slice(start, min(start + piece, len(values)))
            at = places[part] if places is not None else torch.arange(
                start, part.stop, device=values.device
            )  # fmt: skip
            if self._across:
                column = at // rows
                group = column // SUB * rows + (at - column * rows)
            else:
                row = at // columns
                group = row * -(-columns // SUB) + (at - row * columns) // SUB
            step = self._steps.index_select(0, group)
            codes = (values[part] / step).round_().clamp_(-8, 7)
            torch.mul(codes, step, out=result[part])
            result[part].masked_fill_(step == 0, 0.0)
        return result

    def packed(self, weights: Floats, mask: Bools) -> PackedTensor:
        """Of weights [out, in], the very values that `round` makes of them."""
        step = self._step_of().repeat(SUB, axis=1)[:, : weights.shape[1]]
        with np.errstate(divide="ignore", invalid="ignore"):
            codes = np.clip(np.rint(weights / step), np.float32(-8), np.float32(7))
        codes[(step == 0) | ~mask] = 0
        return pack_codes(
            (codes + 8).astype(np.uint8), mask, self._pattern, "int4", self.scales.numpy(),
            self.subscales.numpy(),
        )  # fmt: skip
