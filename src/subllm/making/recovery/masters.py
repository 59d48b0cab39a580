"""What learns, in float32, and AdamW on it: kept values only, one tensor at a time.

A tensor has its values in the compute dtype, which forward and backward use, and for the
kept of them a float32 master and AdamW's two moments. As soon as its gradient exists it is
used up, so that gradients never exist all at once. What is pruned has no master and no
moment: nothing can make it anything but 0.

A master is not stored twice. Where the model computes in float32 it is the weight; where in
bfloat16, the weight is the nearest to it (of two, the one farther from 0) and what its bits are
more is stored beside, an int16. Only where values are rounded to a grid, or computed with in
float64, a master has a place of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from subllm.errors import ExtractionError
from subllm.kernels.sparsity.packing import PackedTensor
from subllm.making.recovery import fused
from subllm.making.recovery.eight_bit import Moments as EightBitMoments
from subllm.making.recovery.places import Places
from subllm.making.recovery.recipe import Recipe
from subllm.making.recovery.rounding import Bools, Floats, Grid, Products

# Values that torch works on in float32 at a time: on a CPU they stay in the cache.
_CHUNK, CHUNK_GPU = 1 << 16, 1 << 22
_WIDE = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class DivergedError(ExtractionError):
    """A loss or gradient is no number: what was learned since the last good state is lost."""


@dataclass(frozen=True)
class _Moments:
    """[count] each, in a floating type."""

    first: torch.Tensor
    second: torch.Tensor

    def pair(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.first, self.second

    def states(self) -> dict[str, torch.Tensor]:
        """What a saved state holds of them."""
        return {"first": self.first, "second": self.second}


def _moments(recipe: Recipe, count: int, device: torch.device) -> _Moments | EightBitMoments:
    """Zeros. Raises UsageError as `EightBitMoments`."""
    if recipe.moments == "int8":
        return EightBitMoments(count, device)
    kind = _WIDE[recipe.moments]
    first, second = (torch.zeros(count, dtype=kind, device=device) for _ in range(2))
    return _Moments(first, second)


@dataclass
class AdamW:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) without decay; the gradient of each
    tensor is clipped by its own norm. `begin` before every backward pass."""

    recipe: Recipe
    steps: int = 0
    lr: float = 0.0

    def begin(self, lr: float) -> None:
        self.steps += 1
        self.lr = lr

    def corrected(self) -> tuple[float, float]:
        """The step size with the first moment's correction of bias in it, and the root of
        the second's."""
        beta1, beta2 = self.recipe.betas
        return self.lr / (1 - beta1**self.steps), math.sqrt(1 - beta2**self.steps)


class Learned:
    """One tensor that learns.

    weight  what the model computes with, [out, in] (or, `across`, [in, out]; or a vector)
    watch   hears of every input that the matrix multiplies, while it is set
    """

    def __init__(
        self,
        name: str,
        start: npt.NDArray[np.float32],
        mask: npt.NDArray[np.bool_] | None,
        adamw: AdamW,
        device: torch.device,
        dtype: torch.dtype,
        *,
        across: bool = False,
    ) -> None:
        """start: float32 [out, in]; what it holds outside the mask is ignored."""
        self.name, self.across, self._adamw = name, across, adamw
        self.shape = start.shape
        values = torch.from_numpy(start)
        kept = None if mask is None else torch.from_numpy(np.asarray(mask, np.bool_))
        if across:
            values = values.T
            kept = None if kept is None else kept.T
        self.places = Places(
            None if kept is None else kept.flatten(), values.numel(), torch.device(device)
        )
        self.moments = _moments(adamw.recipe, self.places.count, torch.device(device))
        self.weight = torch.zeros(values.shape, dtype=dtype, device=device)
        self._whole: torch.Tensor | None = None  # masters in a place of their own
        self._rest: torch.Tensor | None = None  # what their bits are more than the weight's
        self.watch: Callable[[torch.Tensor], None] | None = None
        self._grid: Grid | None = None
        self._make_room()
        self.start(start)

    @torch.no_grad()
    def start(self, values: npt.NDArray[np.float32]) -> None:
        """Begin from these, float32 [out, in]; what they hold outside the mask is ignored."""
        self._take(values)
        for state in self.moments.states().values():
            state.zero_()

    def _make_room(self) -> None:
        """For masters as they are stored now; what they were is lost."""
        count, device, dtype = self.places.count, self.weight.device, self.weight.dtype
        self._whole = self._rest = None
        if self._grid is not None or dtype not in fused.TYPES:
            self._whole = torch.zeros(count, device=device)
        elif dtype == torch.bfloat16:
            self._rest = torch.zeros(count, dtype=torch.int16, device=device)

    def values(self) -> torch.Tensor:
        """The masters, float32 [count]; not to be written to, but by `put` of the whole."""
        if self._whole is not None:
            return self._whole
        index, flat = self.places.index(), self.weight.view(-1)
        kept = flat.clone() if index is None else flat.index_select(0, index)
        if self._rest is None:
            return kept
        return ((kept.view(torch.int16).int() << 16) + self._rest).view(torch.float32)

    @torch.no_grad()
    def put(self, values: torch.Tensor, index: torch.Tensor | None = None) -> None:
        """New masters, float32 [count]; index: `Places.index`, where it is at hand."""
        if index is None:
            index = self.places.index()
        if self._whole is not None:
            self._whole.copy_(values)
            self._rewrite(index)
        elif self._rest is not None:
            bits = values.view(torch.int32)
            self._rest.copy_(bits)
            self._write(((bits + 0x8000) >> 16).to(torch.int16).view(torch.bfloat16), index)
        else:
            self._write(values, index)

    def _take(self, values: Floats) -> None:
        whole = torch.from_numpy(values)
        flat = (whole.T if self.across else whole).to(self.weight.device).flatten()
        index = self.places.index()
        self.put(flat if index is None else flat.index_select(0, index), index)

    def states(self) -> dict[str, torch.Tensor]:
        """What a saved state holds of it; the master may be a copy."""
        found = {"master": self.values(), **self.moments.states()}
        return found if self._grid is None else found | self._grid.states()

    def restore(self, states: Mapping[str, torch.Tensor]) -> None:
        """After other values were written to what `states` gave."""
        if self._grid is not None:
            self._grid.refresh()
        self.put(states["master"])

    def _rewrite(self, index: torch.Tensor | None) -> None:
        """The masters, which have a place of their own, into the weight."""
        assert self._whole is not None
        values = self._whole if self._grid is None else self._grid.round(self._whole, index)
        self._write(values.to(self.weight.dtype), index)

    @torch.no_grad()
    def begin_rounding(self, pattern: str, products: Products | None = None) -> None:
        """From here on the weight is the masters' rounded values; these become what `products` of
        its inputs make of them. Without those the scales are yet to be loaded."""
        rows, columns = self.shape
        before = self.values()
        self._grid = Grid((rows, columns), pattern, self.weight.device, across=self.across)
        self._make_room()
        assert self._whole is not None
        self._whole.copy_(before)
        if products is not None:
            self._take(self._grid.begin(self.read(), self._mask(), products))

    def end_rounding(self) -> None:
        """The weight is the masters' own values again."""
        if self._grid is not None:
            before, self._grid = self.values(), None
            self._make_room()
            self.put(before)

    @torch.no_grad()
    def fit(self) -> None:
        """Scales of what is rounded, again."""
        if self._grid is not None:
            self._grid.fit(self.read(), self._mask())
            self._rewrite(self.places.index())

    def packed(self) -> PackedTensor | None:
        """The very values that the model computes with, where they are rounded."""
        return None if self._grid is None else self._grid.packed(self.read(), self._mask())

    def _mask(self) -> Bools:
        """bool [out, in]"""
        index = self.places.index()
        flat = torch.ones(self.places.size, dtype=torch.bool)
        if index is not None:
            flat.fill_(False).index_fill_(0, index.cpu(), True)
        whole = flat.view(self.weight.shape)
        return np.ascontiguousarray((whole.T if self.across else whole).numpy())

    def _write(self, values: torch.Tensor, index: torch.Tensor | None) -> None:
        flat = self.weight.view(-1)
        if index is None:
            flat.copy_(values)
        else:
            flat.index_copy_(0, index, values)

    @torch.no_grad()
    def step(self, gradient: torch.Tensor) -> None:
        """Use up the gradient, of the weight's shape. Raises DivergedError where it is no
        number; masters and moments are then as they were."""
        wide = isinstance(self.moments, _Moments)
        fusible = wide and self.weight.device.type == "cpu" and self.weight.dtype in fused.TYPES
        norm = self._step_fused(gradient) if fusible else self._step_torch(gradient)
        if not math.isfinite(norm):
            raise DivergedError(f"the gradient of {self.name} is not finite")
        if self._grid is not None:
            self._rewrite(self.places.index())

    def _step_fused(self, gradient: torch.Tensor) -> float:
        recipe = self._adamw.recipe
        beta1, beta2 = recipe.betas
        rate, root = self._adamw.corrected()
        assert isinstance(self.moments, _Moments)
        return fused.step(
            gradient.contiguous(), self.places.stored(), self._whole, self._rest,
            self.moments.pair(), self.weight, clip=recipe.clip, beta1=beta1, beta2=beta2,
            eps=recipe.eps, rate=rate, root=root,
        )  # fmt: skip

    def _step_torch(self, gradient: torch.Tensor) -> float:
        """On any device and in any type."""
        index = self.places.index()
        flat = gradient.reshape(-1)
        if index is not None:
            flat = flat.index_select(0, index)
        wide = torch.promote_types(flat.dtype, torch.float32)
        norm = float(torch.linalg.vector_norm(flat, dtype=wide))
        if not math.isfinite(norm):
            return norm
        recipe = self._adamw.recipe
        scale = min(1.0, recipe.clip / norm) if norm else 1.0
        master = self.values()
        if isinstance(self.moments, EightBitMoments):
            self.moments.step(
                flat.float(), master, scale=scale, betas=recipe.betas, eps=recipe.eps,
                lr=self._adamw.lr, steps=self._adamw.steps,
            )  # fmt: skip
            self.put(master, index)
            return norm
        beta1, beta2 = recipe.betas
        rate, root = self._adamw.corrected()
        first, second = self.moments.pair()
        chunk = _CHUNK if flat.device.type == "cpu" else CHUNK_GPU
        for start in range(0, len(flat), chunk):
            part = slice(start, start + chunk)
            g = flat[part].to(torch.float32, copy=True).mul_(scale)
            m = first[part].float().lerp_(g, 1 - beta1)
            v = second[part].float().mul_(beta2).addcmul_(g, g, value=1 - beta2)
            first[part], second[part] = m, v
            master[part].addcdiv_(m, v.sqrt().div_(root).add_(recipe.eps), value=-rate)
        self.put(master, index)
        return norm

    @property
    def shown(self) -> torch.Tensor:
        """The weight, where the model computes."""
        return self.weight

    def read(self) -> npt.NDArray[np.float32]:
        """The whole tensor from its masters, float32 [out, in], 0 where pruned."""
        flat = torch.zeros(self.places.size, device=self.weight.device)
        index = self.places.index()
        if index is None:
            flat.copy_(self.values())
        else:
            flat.index_copy_(0, index, self.values())
        whole = flat.view(self.weight.shape).cpu()
        return np.ascontiguousarray((whole.T if self.across else whole).numpy())

    def check(self) -> None:
        """Raises ExtractionError for a value that the model computes with where the mask is
        False."""
        index = self.places.index()
        if index is None:
            return
        left = self.weight.clone().view(-1).index_fill_(0, index, 0)
        if bool((left != 0).any()):
            raise ExtractionError(
                f"{self.name} has values where its mask has none; this is a bug, please report it"
            )


class Masters:
    """All tensors that learn, by full name. The `Weights` that a recovery hands out."""

    def __init__(self) -> None:
        self.tensors: dict[str, Learned] = {}

    def add(self, tensor: Learned) -> Learned:
        self.tensors[tensor.name] = tensor
        return tensor

    def __iter__(self) -> Iterator[Learned]:
        return iter(self.tensors.values())

    def names(self) -> list[str]:
        """See `Weights`."""
        return list(self.tensors)

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """See `Weights`."""
        return self.tensors[name].read()

    def packed(self, name: str) -> PackedTensor | None:
        """See `Weights`."""
        return self.tensors[name].packed()

    def set_rounding(self, patterns: Mapping[str, str]) -> None:
        """Those of these names are rounded, with scales that are yet to be loaded; others not."""
        for tensor in self:
            tensor.end_rounding()
            if tensor.name in patterns:
                tensor.begin_rounding(patterns[tensor.name])

    def fit(self) -> None:
        """See `Learned.fit`."""
        for tensor in self:
            tensor.fit()

    def check(self) -> None:
        """See `Learned.check`."""
        for tensor in self:
            tensor.check()
