"""The GGUF container: header, metadata and tensor table, parsed straight from the map.

Nothing in the file is trusted: every count and offset is checked against the file's
length before use. Arrays of the metadata (a vocabulary has 150,000 strings) are
skipped at first and decoded when asked for, which keeps opening fast.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from subllm.errors import WeightsError
from subllm.models.weights.mapped import MappedFile

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMS = 4
MAX_TENSORS = 1 << 20
MAX_KEYS = 1 << 16
MAX_ELEMENTS = 1 << 40

# GGML type id -> (name, weights per block, bytes per block)
TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    30: ("BF16", 1, 2),
}

_SCALARS: dict[int, str] = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i",
    6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True)
class TensorInfo:
    """`shape` is row-major (the file lists dimensions the other way round); `offset`
    counts from the start of the file; a row is `row_bytes` long."""

    name: str
    kind: str
    shape: tuple[int, ...]
    offset: int
    size: int
    row_bytes: int


@dataclass(frozen=True)
class _Array:
    """A metadata array left in the file: `count` elements of `kind` from `offset`."""

    kind: int
    count: int
    offset: int


class GgufFile:
    """One opened file. `metadata` holds scalars and strings; `array` decodes arrays."""

    def __init__(self, path: Path) -> None:
        """Raises WeightsError naming the file for anything malformed or truncated."""
        self.path = path
        self.file = MappedFile(path)
        self.metadata: dict[str, Any] = {}
        self._arrays: dict[str, _Array] = {}
        self.tensors: dict[str, TensorInfo] = {}
        self._position = 0
        try:
            self._parse()
        except BaseException:
            self.file.close()
            raise
        self.file.release()

    def array(self, key: str) -> list[Any] | None:
        """A metadata array as a list of str, int, float or bool; None where absent."""
        array = self._arrays.get(key)
        if array is None:
            return None
        if array.kind == _STRING:
            try:
                return [str(raw, "utf-8") for raw in self._strings(array)]
            except UnicodeDecodeError as error:
                raise self._bad(f"{key} holds text that is not UTF-8") from error
        size = struct.calcsize(_SCALARS[array.kind]) * array.count
        values = self.file.bytes_at(array.offset, size).view(_SCALARS[array.kind])
        return list(values.tolist())

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        """A tensor's raw bytes, a view on the map."""
        info = self.tensors[name]
        return self.file.bytes_at(info.offset, info.size)

    def _bad(self, what: str) -> WeightsError:
        return WeightsError(f"{self.path} is not a valid GGUF file: {what}; fetch it again")

    def _take(self, size: int) -> int:
        """The current position, after moving `size` bytes on."""
        start = self._position
        if size > self.file.size - start:
            raise self._bad("it is truncated")
        self._position = start + size
        return start

    def _u32(self) -> int:
        return int(_U32.unpack_from(self.file.buffer, self._take(4))[0])

    def _u64(self) -> int:
        return int(_U64.unpack_from(self.file.buffer, self._take(8))[0])

    def _string(self) -> str:
        size = self._u64()
        start = self._take(size)
        try:
            return self.file.buffer[start : start + size].decode()
        except UnicodeDecodeError as error:
            raise self._bad("a name or value is not UTF-8") from error

    def _parse(self) -> None:
        if self.file.size < 24 or self.file.buffer[:4] != MAGIC:
            raise self._bad("it does not start with GGUF")
        self._position = 4
        version = self._u32()
        if version not in VERSIONS:
            raise self._bad(f"version {version} is not one of {VERSIONS}")
        tensor_count, key_count = self._u64(), self._u64()
        if tensor_count > MAX_TENSORS or key_count > MAX_KEYS:
            raise self._bad(f"it claims {tensor_count} tensors and {key_count} keys")
        for _ in range(key_count):
            self._parse_entry()
        raw = [self._parse_tensor() for _ in range(tensor_count)]
        alignment = self.metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
            raise self._bad(f"alignment {alignment!r} is not a power of two")
        base = -(-self._position // alignment) * alignment
        for name, kind, shape, relative in raw:
            self._add_tensor(name, kind, shape, base + relative)

    def _parse_entry(self) -> None:
        key, kind = self._string(), self._u32()
        if key in self.metadata or key in self._arrays:
            raise self._bad(f"key {key!r} occurs twice")
        if kind == _STRING:
            self.metadata[key] = self._string()
        elif kind == _ARRAY:
            self._arrays[key] = self._skip_array(key)
        elif kind in _SCALARS:
            form = _SCALARS[kind]
            start = self._take(struct.calcsize(form))
            self.metadata[key] = struct.unpack_from(form, self.file.buffer, start)[0]
        else:
            raise self._bad(f"key {key!r} has unknown type {kind}")

    def _skip_array(self, key: str) -> _Array:
        kind, count = self._u32(), self._u64()
        array = _Array(kind, count, self._position)
        if kind in _SCALARS:
            self._take(struct.calcsize(_SCALARS[kind]) * count)
        elif kind == _STRING:
            if count * 8 > self.file.size - self._position:
                raise self._bad("it is truncated")
            self._position = self._end_of_strings(array)
        else:
            raise self._bad(f"array {key!r} has unknown element type {kind}")
        return array

    def _end_of_strings(self, array: _Array) -> int:
        # A plain loop over locals: this runs 300,000 times when a file is opened.
        buffer, size, unpack = self.file.buffer, self.file.size, _U64.unpack_from
        position = array.offset
        for _ in range(array.count):
            if position + 8 > size:
                raise self._bad("it is truncated")
            position += 8 + unpack(buffer, position)[0]
        if position > size:
            raise self._bad("it is truncated")
        return position

    def _strings(self, array: _Array) -> Iterator[bytes]:
        buffer, unpack, position = self.file.buffer, _U64.unpack_from, array.offset
        for _ in range(array.count):
            start = position + 8
            position = start + unpack(buffer, position)[0]
            yield buffer[start:position]

    def _parse_tensor(self) -> tuple[str, int, tuple[int, ...], int]:
        name, dims = self._string(), self._u32()
        if not 1 <= dims <= MAX_DIMS:
            raise self._bad(f"tensor {name!r} has {dims} dimensions")
        shape = tuple(reversed([self._u64() for _ in range(dims)]))
        return name, self._u32(), shape, self._u64()

    def _add_tensor(self, name: str, kind: int, shape: tuple[int, ...], offset: int) -> None:
        if name in self.tensors:
            raise self._bad(f"tensor {name!r} occurs twice")
        if kind not in TENSOR_TYPES:
            known = ", ".join(entry[0] for entry in TENSOR_TYPES.values())
            raise WeightsError(
                f"{self.path}: tensor {name!r} has GGML type {kind}, which is not supported; "
                f"choose a file quantized with {known}"
            )
        type_name, per_block, block_bytes = TENSOR_TYPES[kind]
        if 0 in shape or prod(shape) > MAX_ELEMENTS or shape[-1] % per_block:
            raise self._bad(f"tensor {name!r} of type {type_name} has shape {shape}")
        row_bytes = shape[-1] // per_block * block_bytes
        size = prod(shape[:-1]) * row_bytes
        if offset + size > self.file.size:
            raise self._bad(f"tensor {name!r} reaches beyond the end; it is truncated")
        self.tensors[name] = TensorInfo(name, type_name, shape, offset, size, row_bytes)
