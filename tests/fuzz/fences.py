"""Arrays that end, or begin, at memory which nobody may touch.

A kernel that reads beyond a plane meets a segmentation fault instead of its neighbour.
"""

from __future__ import annotations

import ctypes
import dataclasses
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from subllm.engine.loader import PackedSource
from subllm.kernels.sparsity.layout import ALIGN, padded
from subllm.kernels.sparsity.packing import PackedTensor
from subllm.kernels.sparsity.screen import Screen

_PAGE = mmap.PAGESIZE
_PROT_NONE = 0


def fenced(array: npt.NDArray[Any], *, front: bool) -> npt.NDArray[Any]:
    """A copy with unreadable pages around it, aligned to 64 bytes.

    The copy, filled up to whole units of 64 bytes as in a file, ends where the page behind
    it begins, or begins where the page before it ends (`front`).
    """
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    size = padded(raw.size)
    room = -(-max(size, 1) // _PAGE) * _PAGE
    pages = mmap.mmap(-1, room + 2 * _PAGE)
    start = _PAGE if front else _PAGE + room - size
    whole = np.frombuffer(pages, np.uint8)
    whole[start : start + raw.size] = raw
    address = whole.ctypes.data
    for page in (address, address + _PAGE + room):
        _forbid(page)
    assert (address + start) % ALIGN == 0
    return whole[start : start + raw.size].view(array.dtype).reshape(array.shape)


def _forbid(page: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(_PAGE), _PROT_NONE):
        raise OSError(ctypes.get_errno(), "mprotect")


class FencedSource:
    """A `PackedWeightSource` whose planes are fenced copies of another's."""

    def __init__(self, source: PackedSource, *, front: bool) -> None:
        self._source, self._front = source, front
        self.spec = source.spec

    def tensor(self, name: str) -> PackedTensor:
        tensor = self._source.tensor(name)
        planes = {
            plane: fenced(array, front=self._front)
            for plane in ("mask", "data", "scales", "offsets")
            if (array := getattr(tensor, plane)) is not None
        }
        return dataclasses.replace(tensor, **planes)

    def screen(self, name: str) -> Screen | None:
        found = self._source.screen(name)
        if found is None:
            return None
        planes = {
            plane: fenced(getattr(found, plane), front=self._front)
            for plane in ("codes", "steps", "columns")
        }
        return dataclasses.replace(found, **planes)

    def vector(self, name: str) -> npt.NDArray[np.float32]:
        return self._source.vector(name)
