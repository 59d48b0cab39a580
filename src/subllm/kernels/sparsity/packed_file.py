"""Packed tensors and vectors in one file. `container` describes the form."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt

from subllm.errors import DiskFullError, LayoutError, WeightsError
from subllm.files import Replacement
from subllm.kernels.sparsity.container import (
    MAX_HEADER,
    METADATA,
    PREFIX,
    Entry,
    TableRow,
    decode_header,
    encode_header,
    planes_of,
)
from subllm.kernels.sparsity.layout import Values, elements, padded
from subllm.kernels.sparsity.mapping import MappedFile
from subllm.kernels.sparsity.packing import PackedTensor
from subllm.kernels.sparsity.screen import Screen, check_screen, screen_shapes, verify_screen

RESERVE = 1 << 16  # bytes left for the header while its length is unknown
CHUNK = 1 << 24


class PackedWriter:
    """Writes a packed file tensor by tensor; memory holds one tensor and all vectors.

    The bytes go to `<path>.partial`; `close` writes the header, syncs and renames, so that
    `path` is either absent (or its old self) or complete. As a context manager it closes
    on success and discards on an exception. Raises DiskFullError when the disk is full,
    WeightsError when the file cannot be written, LayoutError for a name that is used twice.
    """

    def __init__(self, path: Path, *, reserve: int = RESERVE) -> None:
        self._start = padded(reserve)
        self._end = 0
        self._entries: list[Entry] = []
        self._table: dict[str, TableRow] = {}
        self._vectors: dict[str, npt.NDArray[np.float32]] = {}
        try:
            self._new = Replacement(path)
            self._file = self._new.file
            self._file.seek(self._start)
        except OSError as error:
            raise _disk_error(error) from error

    def add_packed(self, name: str, tensor: PackedTensor, screen: Screen | None = None) -> None:
        """`screen`: the tensor's screening plane. Raises LayoutError for planes that do not fit
        their description."""
        geometry = tensor.check()
        self._claim(name, *(f"{name}.{plane}" for plane in planes_of(geometry)))
        planes = {
            "mask": tensor.mask,
            "values": tensor.data,
            "scales": tensor.scales,
            "offsets": tensor.offsets,
            "subscales": tensor.subscales,
        }
        for plane in planes_of(geometry):
            self._append(f"{name}.{plane}", "U8", cast("npt.NDArray[np.generic]", planes[plane]))
        digest = ""
        if screen is not None:
            check_screen(screen, tensor, name)
            digest = screen.digest
            for plane in screen_shapes(screen.shape):
                self._append(f"{name}.screen.{plane}", "U8", getattr(screen, plane))
        self._table[name] = TableRow(tensor.shape, tensor.pattern, tensor.values, digest)

    def add_vector(self, name: str, vector: npt.NDArray[np.float32]) -> None:
        """A float32 vector [n], kept in memory until `close`."""
        self._claim(name)
        if vector.ndim != 1 or vector.dtype != np.float32:
            raise WeightsError(
                f"{name!r} is {vector.dtype} of shape {vector.shape}, not a float32 vector"
            )
        self._vectors[name] = vector.copy()

    def close(self) -> None:
        """Completes the file and moves it to its place."""
        try:
            for name, vector in self._vectors.items():
                self._append(name, "F32", vector)
            header = encode_header(self._entries, self._table, minimum=self._start)
            if len(header) > self._start:
                self._shift(len(header) - self._start)
            self._file.seek(0)
            self._file.write(header)
            self._new.commit()
        except OSError as error:
            self.discard()
            raise _disk_error(error) from error

    def discard(self) -> None:
        """Removes what was written; `path` stays as it was."""
        self._new.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _claim(self, *names: str) -> None:
        taken = {entry.name for entry in self._entries} | self._table.keys() | self._vectors.keys()
        for name in names:
            if name in taken or name == METADATA:
                raise LayoutError(f"tensor {name!r} is there twice; each name may be added once")

    def _append(self, name: str, dtype: str, array: npt.NDArray[np.generic]) -> None:
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        size = padded(raw.size) if dtype == "U8" else raw.size
        try:
            self._file.write(raw.data)
            self._file.write(bytes(size - raw.size))
        except OSError as error:
            raise _disk_error(error) from error
        shape = (size,) if dtype == "U8" else (array.size,)
        self._entries.append(Entry(name, dtype, shape, self._end, self._end + size))
        self._end += size

    def _shift(self, distance: int) -> None:
        """Moves the data towards the end, last chunk first, to make room for the header."""
        left = self._end
        while left:
            size = min(CHUNK, left)
            left -= size
            self._file.seek(self._start + left)
            chunk = self._file.read(size)
            self._file.seek(self._start + left + distance)
            self._file.write(chunk)


class PackedReader:
    """A packed file, mapped. Tensors are views of the mapping: nothing is copied.

    Opening checks the whole structure (LayoutError, also for a file that is not one);
    `verify` checks the contents. Views stay valid after `close`, which only lets go.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                head = file.read(PREFIX)
                head += file.read(min(int.from_bytes(head, "little"), MAX_HEADER))
                self._header = decode_header(head, size)
                self._file = MappedFile(file.fileno())
        except OSError as error:
            raise WeightsError(f"cannot read {path} ({error.strerror}); check the file") from error
        except LayoutError as error:
            raise LayoutError(f"{path.name}: {error}") from error

    @property
    def table(self) -> Mapping[str, TableRow]:
        """Packed tensors by name, in the order in which they were written."""
        return self._header.table

    @property
    def vectors(self) -> tuple[str, ...]:
        """Names of the vectors."""
        return self._header.vectors

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Planes and vectors as the container holds them."""
        return tuple(self._header.entries.values())

    def names(self) -> tuple[str, ...]:
        """Packed tensors, then vectors."""
        return (*self.table, *self.vectors)

    def tensor(self, name: str) -> PackedTensor:
        """Raises WeightsError for an unknown name, LayoutError for a damaged plane."""
        if name not in self.table:
            raise WeightsError(f"packed tensor {name!r} is not in this file; extract it again")
        row = self.table[name]
        bare = PackedTensor(
            row.shape,
            row.pattern,
            cast("Values", row.values),
            None,
            self._file.bytes[:0],
            None,
            None,
        )
        geometry = bare.geometry

        def plane(
            kind: str, dtype: npt.DTypeLike, shape: tuple[int, ...] | None
        ) -> npt.NDArray[np.generic] | None:
            if shape is None:
                return None
            return self._view(f"{name}.{kind}").view(dtype)[: elements(shape)].reshape(shape)

        tensor = PackedTensor(
            row.shape,
            row.pattern,
            bare.values,
            cast("npt.NDArray[np.uint64] | None", plane("mask", np.uint64, geometry.mask_shape)),
            self._view(f"{name}.values"),
            cast(
                "npt.NDArray[np.float16] | None", plane("scales", np.float16, geometry.scales_shape)
            ),
            cast(
                "npt.NDArray[np.uint32] | None", plane("offsets", np.uint32, geometry.offsets_shape)
            ),
            cast(
                "npt.NDArray[np.uint8] | None",
                plane("subscales", np.uint8, geometry.subscales_shape),
            ),
        )
        tensor.check()
        return tensor

    def screen(self, name: str) -> Screen | None:
        """The screening plane of a packed tensor, if it has one. Whether it belongs to the
        tensor is for `check_screen` to say."""
        row = self.table.get(name)
        if row is None or not row.screen:
            return None
        planes = {
            plane: self._view(f"{name}.screen.{plane}").view(dtype)[: elements(of)].reshape(of)
            for plane, (dtype, of) in screen_shapes(row.shape).items()
        }
        return Screen(row.shape, **cast("dict[str, Any]", planes), digest=row.screen)

    def vector(self, name: str) -> npt.NDArray[np.float32]:
        """float32 [n]. Raises WeightsError for an unknown name."""
        if name not in self._header.vectors:
            raise WeightsError(f"vector {name!r} is not in this file; extract the model again")
        return self._view(name).view(np.float32)

    def verify(self) -> None:
        """Reads every mask, scale and offset, and makes screening planes again. Raises
        LayoutError naming the first bad tensor."""
        for name in self.table:
            try:
                tensor, screen = self.tensor(name), self.screen(name)
                tensor.verify()
                if screen is not None:
                    verify_screen(screen, tensor)
            except LayoutError as error:
                raise LayoutError(f"tensor {name!r}: {error}") from error

    def copy(self) -> None:
        """Views made from here on are of a copy in large pages; see `MappedFile.copy`."""
        self._file.copy()

    def close(self) -> None:
        """Lets go of the mapping; it lives on while a view of it does."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _view(self, name: str) -> npt.NDArray[np.uint8]:
        entry = self._header.entries[name]
        start = self._header.data_start
        return self._file.bytes[start + entry.start : start + entry.end]


def concat(parts: Iterable[Path], out: Path) -> None:
    """Joins packed files into one, tensors in the order of the parts, one part in memory's
    page cache at a time. The result depends on the tensors alone, not on the parts' cuts.

    Raises LayoutError for a name that occurs twice, and as PackedReader and PackedWriter do.
    """
    paths = list(parts)
    with PackedWriter(out, reserve=_exact_header(paths)) as writer:
        for path in paths:
            with PackedReader(path) as reader:
                for name in reader.table:
                    writer.add_packed(name, reader.tensor(name), reader.screen(name))
                for name in reader.vectors:
                    writer.add_vector(name, reader.vector(name))


def _exact_header(paths: Iterable[Path]) -> int:
    """Bytes that the header of the joined file takes."""
    planes: list[Entry] = []
    vectors: list[Entry] = []
    table: dict[str, TableRow] = {}
    for path in paths:
        with PackedReader(path) as reader:
            table |= reader.table
            for entry in reader.entries:
                (vectors if entry.dtype == "F32" else planes).append(entry)
    end = 0
    moved: list[Entry] = []
    for entry in planes + vectors:
        size = entry.end - entry.start
        moved.append(Entry(entry.name, entry.dtype, entry.shape, end, end + size))
        end += size
    return len(encode_header(moved, table))


def _disk_error(error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError("the disk is full; free some space and run the command again")
    return WeightsError(f"cannot write a packed file ({error.strerror}); check the disk")
