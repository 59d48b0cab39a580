"""One block of a model on the native engine, without the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from subllm import native
from subllm.arch.spec import ArchSpec
from subllm.errors import ExtractionError
from subllm.runtime.backends.native.weights import NamedTensors
from subllm.sparsity.packing import PackedTensor
from subllm.weights.reader import WeightReader

_NONE: Mapping[str, npt.NDArray[np.float32]] = MappingProxyType({})


def open_block(
    reader: WeightReader,
    layer: int,
    packed: Mapping[str, PackedTensor],
    threads: int,
    *,
    vectors: Mapping[str, npt.NDArray[np.float32]] = _NONE,
    exact: bool = False,
) -> Any:
    """Block `layer` of a base as `_native.Block`, with these matrices, by their name in a block.

    vectors  full name -> norms and biases instead of the base's
    exact    activations stay float32: slow, a reference

    Raises ExtractionError where the engine refuses them.
    """
    spec = reader.spec
    alone = replace(spec, num_layers=1, sliding_layers=(spec.sliding_layers[layer],))
    tensors = NamedTensors(_BlockTensors(reader, layer, packed, vectors))
    try:
        return native.core().Block(alone.to_dict(), tensors.layer(layer), threads, exact)
    except (ValueError, RuntimeError) as error:
        raise ExtractionError(f"the native engine refused block {layer}: {error}") from error


class _BlockTensors:
    """A `PackedWeightSource` of one block: packed matrices, vectors from the base but for
    `vectors`."""

    def __init__(
        self,
        reader: WeightReader,
        layer: int,
        packed: Mapping[str, PackedTensor],
        vectors: Mapping[str, npt.NDArray[np.float32]],
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
