"""A safetensors file written tensor by tensor; its header comes first, so sizes are told before."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "U8": 1, "I64": 8}


@dataclass(frozen=True)
class Stored:
    """A tensor: `pieces` gives its bytes in order, as arrays of any shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterator[Array]]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * ITEM_BYTES[self.dtype]


class InPieces(Protocol):
    """A tensor of a file: `pieces` gives its `nbytes` bytes in order, as arrays of any shape."""

    @property
    def name(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def pieces(self) -> Callable[[], Iterator[Array]]: ...


def file_size(tensors: list[Stored]) -> int:
    """Bytes of the file that `write` makes of them."""
    return len(_header(tensors)) + sum(tensor.nbytes for tensor in tensors)


def write(file: BinaryIO, tensors: list[Stored], on_bytes: Callable[[int], None]) -> None:
    """on_bytes hears of each piece that was written."""
    header = _header(tensors)
    file.write(header)
    on_bytes(len(header))
    for tensor in tensors:
        write_tensor(file, tensor, on_bytes)


def write_tensor(file: BinaryIO, tensor: InPieces, on_bytes: Callable[[int], None]) -> None:
    """Its bytes, of which all that it announces must come."""
    done = 0
    for piece in tensor.pieces():
        file.write(np.ascontiguousarray(piece).data)
        on_bytes(piece.nbytes)
        done += piece.nbytes
    assert done == tensor.nbytes, tensor.name


def _header(tensors: list[Stored]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + tensor.nbytes
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def as_type(values: npt.NDArray[np.float32], dtype: str) -> Array:
    """float32 rounded to the nearest even of BF16 (as uint16), F16 or F32; -0 becomes 0.

    Values beyond F16 become the largest that it holds.
    """
    if dtype == "F32":
        return values
    if dtype == "F16":
        half: npt.NDArray[np.float16] = np.clip(values, -65504, 65504).astype(np.float16)
        half += np.float16(0)  # no -0
        return half
    bits = values.view(np.uint32)
    rounded = (bits >> np.uint32(16)) & np.uint32(1)
    rounded += bits
    rounded += np.uint32(0x7FFF)  # finite weights do not carry past the sign
    rounded >>= np.uint32(16)
    brain = rounded.astype(np.uint16)
    brain[brain == 0x8000] = 0
    return brain
