"""The safetensors container, validated strictly before anything is read from it.

The `safetensors` package reads bf16 only through torch, so the header (a small JSON
object) is parsed here.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from subllm.errors import WeightsError
from subllm.models.weights.floats import FLOAT_BYTES
from subllm.models.weights.mapped import MappedFile

MAX_HEADER = 100_000_000
MAX_DIMS = 8  # the product of a million sides would take minutes

# Types whose tensors are recognised; only those of FLOAT_BYTES can be read as weights.
_ITEM_BYTES = {
    **FLOAT_BYTES,
    "F64": 8, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1,
    "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """`offset` counts from the start of the file."""

    kind: str
    shape: tuple[int, ...]
    offset: int
    size: int


class SafetensorsFile:
    """One opened file: `tensors` by name, `data` as raw bytes on the map."""

    def __init__(self, path: Path) -> None:
        """Raises WeightsError naming the file for anything malformed or truncated."""
        self.path = path
        self.file = MappedFile(path)
        try:
            self.tensors = self._parse()
        except BaseException:
            self.file.close()
            raise

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        tensor = self.tensors[name]
        return self.file.bytes_at(tensor.offset, tensor.size)

    def _bad(self, what: str) -> WeightsError:
        return WeightsError(f"{self.path} is not a valid safetensors file: {what}; fetch it again")

    def _parse(self) -> dict[str, StoredTensor]:
        if self.file.size < 8:
            raise self._bad("it is truncated")
        length = int(struct.unpack_from("<Q", self.file.buffer)[0])
        if length > MAX_HEADER or 8 + length > self.file.size:
            raise self._bad(f"its header claims {length} bytes")
        try:
            header = json.loads(self.file.buffer[8 : 8 + length])
        except (ValueError, RecursionError) as error:
            raise self._bad("its header is not JSON") from error
        if not isinstance(header, dict):
            raise self._bad("its header is not an object")
        header.pop("__metadata__", None)
        base = 8 + length
        tensors = {name: self._entry(name, entry, base) for name, entry in header.items()}
        end = base
        for tensor in sorted(tensors.values(), key=lambda t: (t.offset, t.size)):
            if tensor.offset != end:
                raise self._bad("its tensors overlap or leave holes")
            end += tensor.size
        if end != self.file.size:
            raise self._bad(f"it has {self.file.size} bytes, its header describes {end}")
        return tensors

    def _entry(self, name: str, entry: Any, base: int) -> StoredTensor:
        if not isinstance(entry, dict):
            raise self._bad(f"tensor {name!r} is not described by an object")
        kind, shape = entry.get("dtype"), entry.get("shape")
        offsets = entry.get("data_offsets")
        if not isinstance(kind, str) or kind not in _ITEM_BYTES:
            raise self._bad(f"tensor {name!r} has unknown type {kind!r}")
        if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
            raise self._bad(f"tensor {name!r} has malformed shape or offsets")
        start, end = offsets
        if end - start != prod(shape) * _ITEM_BYTES[kind]:
            raise self._bad(f"tensor {name!r} does not fit its shape")
        return StoredTensor(kind, tuple(shape), base + start, end - start)


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    if not isinstance(value, list) or len(value) > MAX_DIMS:
        return False
    return all(type(v) is int and 0 <= v < 2**62 for v in value)
