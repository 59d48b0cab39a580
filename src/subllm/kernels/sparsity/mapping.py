"""A file's bytes in memory, in large pages where the system has them.

A decoded token reads all weights once. In pages of 4 KiB a processor spends a tenth to a third of
that time on where they lie; in pages of 2 MiB next to none. A mapping asks for such pages of the
page cache, which some file systems have (xfs, btrfs, ext4 since Linux 6.16). A copy in memory of
the process has them everywhere, and was read faster than those where both were measured.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import threading
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from subllm.machine import free_memory

Bytes = npt.NDArray[np.uint8]

SYSTEM = Path("/sys/kernel/mm/transparent_hugepage")
_PIECE = 64 << 20  # that a copy holds twice at a time

_copies: WeakValueDictionary[tuple[int, ...], Bytes] = WeakValueDictionary()
_copying = threading.Lock()


def large_page(system: Path = SYSTEM) -> int:
    """Bytes of a large page that a process may ask for; 0 where there are none."""
    try:
        if "[never]" in (system / "enabled").read_text():
            return 0
        return int((system / "hpage_pmd_size").read_text())
    except (OSError, ValueError):
        return 0


class MappedFile:
    """A file, mapped for reading with the wish for large pages.

    bytes  uint8 [size], read-only; views of it stay valid after `close`, and after `copy`, which
           puts another array in its place
    """

    def __init__(self, file: int) -> None:
        """file: a descriptor of it, not needed afterwards. Raises OSError; ValueError for an
        empty file."""
        about = os.fstat(file)
        # Tells the file and its contents from others, as far as `stat` does.
        self._key = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
        self._map = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
        if large_page():
            _advise(self._map, mmap.MADV_HUGEPAGE)
        self.bytes: Bytes = np.frombuffer(self._map, np.uint8)

    def copy(self) -> None:
        """Read from a copy in large pages from here on, one for all who map the file; where the
        system has such pages, and free memory room. Takes the time of a copy: about a second for
        half a GB where memory is new to the process."""
        page, size = large_page(), len(self._map)
        if not page or size < page:
            return
        with _copying:
            whole = _copies.get(self._key)
            if whole is None:
                if free_memory() < size + _PIECE:
                    return
                room = mmap.mmap(-1, size + page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                _advise(room, mmap.MADV_HUGEPAGE)
                # What views are of: it lives as long as one of them does.
                whole = np.frombuffer(room, np.uint8)
                self._fill(_aligned(whole, page, size))
                _copies[self._key] = whole
        copied = _aligned(whole, page, size)
        copied.flags.writeable = False
        self.bytes = copied

    def _fill(self, target: Bytes) -> None:
        """In pieces, each of which then is no longer mapped: it is the page cache's alone."""
        source = np.frombuffer(self._map, np.uint8)
        for start in range(0, len(target), _PIECE):
            part = slice(start, min(start + _PIECE, len(target)))
            target[part] = source[part]
            self._map.madvise(mmap.MADV_DONTNEED, start, part.stop - start)

    def close(self) -> None:
        """Lets go of the mapping; it lives on while a view of it does."""
        del self.bytes
        with contextlib.suppress(BufferError):
            self._map.close()


def _aligned(whole: Bytes, page: int, size: int) -> Bytes:
    """`size` bytes from the first beginning of a page on."""
    return whole[-whole.ctypes.data % page :][:size]


def _advise(mapping: mmap.mmap, advice: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a kernel without it
            mapping.madvise(advice)
