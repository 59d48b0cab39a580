"""The weights that a backend loads, piece by piece, wherever they come from."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from subllm.kernels.sparsity.packing import PackedTensor
from subllm.kernels.sparsity.screen import Screen
from subllm.models.arch.spec import ArchSpec

FloatArray = npt.NDArray[np.float32]


class WeightSource(Protocol):
    """Weights by name (names of `arch.spec`), as the forward pass applies them.

    Every method raises WeightsError for an unknown name or a malformed file.
    """

    @property
    def spec(self) -> ArchSpec: ...

    def rows(self, name: str, start: int, stop: int) -> FloatArray:
        """Rows start..stop of a matrix, float32 [stop - start, columns]."""

    def vector(self, name: str) -> FloatArray:
        """A norm or a bias, float32 [size]."""

    def cache_key(self, name: str) -> str | None:
        """Equal for equal matrices of different models, so that models in one process
        share them; None where the matrix belongs to this model alone."""


class PackedWeightSource(Protocol):
    """Packed weights by name, where they lie; for a backend that computes on them.

    Every method raises WeightsError for an unknown name or a malformed file.
    """

    @property
    def spec(self) -> ArchSpec: ...

    def tensor(self, name: str) -> PackedTensor:
        """A matrix; its planes may be mapped memory."""

    def vector(self, name: str) -> FloatArray:
        """A norm or a bias, float32 [size]."""


class ScreenedWeightSource(PackedWeightSource, Protocol):
    """Packed weights of a whole model."""

    def screen(self, name: str) -> Screen | None:
        """The screening plane of a matrix, as `sparsity.screen` describes it; None: none."""


class LoadableWeights(WeightSource, ScreenedWeightSource, Protocol):
    """What every backend can load from."""
