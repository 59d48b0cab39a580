"""Memory that a step gives back is kept for the next step.

A step makes and drops hundreds of results of some megabytes. The C library hands such memory
back to the system, and to get it anew costs more than what is computed in it: a page fault
for every 4 KB.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

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
