"""Memory that a step gives back is kept for the next step.

A step makes and drops hundreds of results of some megabytes. The C library hands such memory
back to the system, and to get it anew costs more than what is computed in it: a page fault
for every 4 KB.
"""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_MOST = 2**31 - 1
# As far as glibc itself raises its thresholds, which it no longer does once they are set.
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20}


@contextmanager
def kept_heap() -> Iterator[None]:
    """What is freed meanwhile stays with the process, up to 2 GB of it in one piece; it is
    handed back in the end. Without effect where the C library is not glibc."""
    try:
        library = ctypes.CDLL(None)
        set_option, trim = library.mallopt, library.malloc_trim
    except (AttributeError, OSError, TypeError):
        yield
        return
    set_option(_MMAP_MAX, 0)
    set_option(_TRIM_THRESHOLD, _MOST)
    try:
        yield
    finally:
        for option, value in _USUAL.items():
            set_option(option, value)
        trim(0)


def apart(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """A tensor of like's type, on its device, of any values. On a CPU it lies beside the heap, and
    goes back to the system as soon as it is dropped."""
    if like.device.type != "cpu" or not hasattr(mmap, "MAP_PRIVATE"):
        return like.new_empty(shape)
    size = math.prod(shape) * like.element_size()
    pages = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=like.dtype, count=math.prod(shape)).view(shape)
