"""The tensors of a stored model by checkpoint name, a few megabytes of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from subllm.errors import WeightsError
from subllm.kernels.sparsity.packing import PackedTensor
from subllm.models.arch.spec import ArchSpec
from subllm.models.arch.tensors import tensor_shapes
from subllm.models.store.model_files import ModelFiles

_SLICE = 4 << 20  # weights of a slice: 16 MiB as float32

Rows = npt.NDArray[np.int64]


class StoredWeights:
    """All tensors in the order of `tensor_shapes`, with the shapes that the manifest gives."""

    def __init__(self, files: ModelFiles) -> None:
        """Raises WeightsError where a tensor is missing or of another shape."""
        self.spec = ArchSpec.from_dict(files.manifest.arch)
        self.shapes = tensor_shapes(self.spec)
        self._files = files
        table = files.manifest.table()
        for name, shape in self.shapes.items():
            if name not in table or tuple(table[name].shape) != shape:
                raise WeightsError(
                    f"{files.manifest.name} has no tensor {name!r} of shape {shape}; "
                    "run 'subllm verify'"
                )

    def is_matrix(self, name: str) -> bool:
        return len(self.shapes[name]) == 2

    def tensor(self, name: str) -> PackedTensor:
        return self._files.tensor(name)

    def vector(self, name: str) -> npt.NDArray[np.float32]:
        """float32 [n], the caller's own."""
        return np.array(self._files.vector(name), np.float32)


def slices(shape: tuple[int, ...], order: Rows | None = None) -> Iterator[Rows]:
    """Row numbers of a matrix in pieces; `order` is another order of all of them."""
    rows, cols = shape
    step = max(1, _SLICE // cols)
    for start in range(0, rows, step):
        piece = np.arange(start, min(start + step, rows), dtype=np.int64)
        yield piece if order is None else order[piece]
