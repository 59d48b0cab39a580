"""Pieces of weight matrices as several sub-models keep them, for the overlay picture.

A file of it is JSON lines of `WindowRecord`; arrays are base64 of their bytes, so that
the picture can be drawn again without the models.
"""

from __future__ import annotations

import base64
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from subllm.errors import UsageError
from subllm.measuring.report.records import Record, parse_lines, validated

_T = TypeVar("_T", bound=np.generic)


class WindowRecord(Record):
    """A window of one matrix in full, and the whole matrix in coarse cells.

    models       names, in the order of the arrays
    at, size     first row and column of the window; its rows and columns
    kept         bits, packed: bool [models, rows, columns]
    weights      float16 [models, rows, columns], 0 where dropped
    cell         rows and columns of weights in one coarse cell (those at the edges: fewer)
    differing    float16 [cell rows, cell columns]: share of the cell's weights that some
                 models keep and some drop
    """

    record: Literal["mask window"] = "mask window"
    models: tuple[str, ...]
    layer: int
    role: str
    tensor: str
    shape: tuple[int, int]
    at: tuple[int, int]
    size: tuple[int, int]
    kept: str
    weights: str
    cell: tuple[int, int]
    differing: str

    def kept_array(self) -> npt.NDArray[np.bool_]:
        """Raises UsageError, as the others do, when the bytes do not fit the sizes."""
        shape = (len(self.models), *self.size)
        count = shape[0] * shape[1] * shape[2]
        packed = self._decode(self.kept, np.uint8, (-(-count // 8),))
        return np.unpackbits(packed, count=count).astype(np.bool_).reshape(shape)

    def weights_array(self) -> npt.NDArray[np.float16]:
        return self._decode(self.weights, np.float16, (len(self.models), *self.size))

    def differing_array(self) -> npt.NDArray[np.float16]:
        rows, cols = (-(-side // step) for side, step in zip(self.shape, self.cell, strict=True))
        return self._decode(self.differing, np.float16, (rows, cols))

    def _decode(self, text: str, dtype: type[_T], shape: tuple[int, ...]) -> npt.NDArray[_T]:
        try:
            return np.frombuffer(base64.b64decode(text, validate=True), dtype).reshape(shape)
        except ValueError as error:
            raise UsageError(
                f"the record of {self.tensor} is damaged ({error}); run 'subllm compare' again"
            ) from error


def encode_array(array: npt.NDArray[np.generic]) -> str:
    """The array's bytes as a record holds them; booleans are packed to bits."""
    data = np.packbits(array.astype(np.bool_)) if array.dtype == np.bool_ else array
    return base64.b64encode(data.tobytes()).decode()


def read_windows(lines: str, *, where: str = "records") -> list[WindowRecord]:
    """Raises UsageError naming the line that is malformed; `where` is the file's name."""
    return [
        validated(WindowRecord, row, f"{where}:{number}")
        for number, row in enumerate(parse_lines(lines, where), 1)
    ]
