"""A file's bytes in memory, in large pages where the system has them.

A decoded token reads all weights once. In pages of 4 KiB a processor spends a tenth to a third of
that time on where they lie; in pages of 2 MiB next to none. Three ways lead there, the first that
works is taken:

- The page cache itself holds the file in large pages, and the mapping shows them (Linux, file
  systems with large folios: xfs, btrfs, ext4 since 6.16): nothing is copied, and processes share
  them. What was read from the disk lies so; what was just written lies in small pieces, and is
  dropped there once and read again.
- The kernel gathers a mapping's pages when asked to (MADV_COLLAPSE, since 6.1, as configured).
- A copy of the file in memory of this process, its pages in the cache given back, one copy for
  all who map the file.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from subllm.machine import free_memory

Bytes = npt.NDArray[np.uint8]

SYSTEM = Path("/sys/kernel/mm/transparent_hugepage")
_MAPS = Path("/proc/self/smaps")
_COLLAPSE = 25  # MADV_COLLAPSE, which Python's mmap does not name
_PROBES = 16
_ENOUGH = 0.75  # of the probes: pages at a file's beginning and end may stay small
_PIECE = 64 << 20  # that a copy holds twice at a time

_copies: WeakValueDictionary[tuple[int, ...], npt.NDArray[np.uint8]] = WeakValueDictionary()
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

    bytes  uint8 [size], read-only; views of it stay valid after `close`, and after `settle`,
           which may put another array in its place
    """

    def __init__(self, path: Path, file: int) -> None:
        """file: a descriptor of it, not needed afterwards. Raises OSError; ValueError for an
        empty file."""
        self._path, self._key = path, _key(file)
        self._map = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
        if large_page():
            _advise(self._map, mmap.MADV_HUGEPAGE)
        self.bytes: Bytes = np.frombuffer(self._map, np.uint8)

    def settle(self, *, copy: bool) -> None:
        """See that the bytes are read in large pages, for which the file may be read once more.
        `copy`: also by copying it, where free memory has room.

        Never fails: where the file has changed or the system refuses, pages stay small.
        """
        page, mapping = large_page(), self._map
        if not page or len(mapping) < page:
            return
        with contextlib.suppress(OSError), self._path.open("rb") as file:
            if _key(file.fileno()) != self._key or _whole(mapping, page):
                return
            if _gathered(mapping, page) or _read_again(mapping, file.fileno(), page):
                return
            if copy and free_memory() > len(mapping) + _PIECE:
                self.bytes = _copy(mapping, file.fileno(), page)

    def close(self) -> None:
        """Lets go of the mapping; it lives on while a view of it does."""
        del self.bytes
        with contextlib.suppress(BufferError):
            self._map.close()


def _key(file: int) -> tuple[int, ...]:
    """Tells a file and its contents from others, as far as `stat` does."""
    about = os.fstat(file)
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


def _whole(mapping: mmap.mmap, page: int, probes: Iterable[int] | None = None) -> bool:
    """Whether large pages come where some are touched."""
    view = np.frombuffer(mapping, np.uint8)
    pages = len(view) // page
    places = list(probes) if probes is not None else _spread(pages)
    for place in places:
        view[place * page].item()
    wanted = len(places) * page
    return _mapped_large(view.ctypes.data, len(view)) >= _ENOUGH * wanted


def _spread(pages: int) -> list[int]:
    return sorted({index * pages // _PROBES for index in range(_PROBES)})


def _gathered(mapping: mmap.mmap, page: int) -> bool:
    try:
        mapping.madvise(_COLLAPSE)
    except (OSError, ValueError):
        return False
    return _whole(mapping, page)


def _read_again(mapping: mmap.mmap, file: int, page: int) -> bool:
    """Drop what the page cache holds of the file, one page of it first to see whether a large
    one comes instead. What others have mapped stays as it is."""
    middle = len(mapping) // page // 2
    for start, size, probes in ((middle * page, page, [middle]), (0, 0, None)):
        _advise(mapping, mmap.MADV_DONTNEED)
        os.posix_fadvise(file, start, size, os.POSIX_FADV_DONTNEED)
        if not _whole(mapping, page, probes):
            return False
    return True


def _copy(mapping: mmap.mmap, file: int, page: int) -> Bytes:
    """Of the whole file, in large pages; the one that is there already, if one is."""
    size, key = len(mapping), _key(file)
    with _copying:
        whole = _copies.get(key)
        if whole is None:
            room = mmap.mmap(-1, size + page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            _advise(room, mmap.MADV_HUGEPAGE)
            # What views are of: it lives as long as one of them does.
            whole = np.frombuffer(room, np.uint8)
            _fill(whole[-whole.ctypes.data % page :][:size], mapping, file)
            _copies[key] = whole
    copied = whole[-whole.ctypes.data % page :][:size]
    copied.flags.writeable = False
    return copied


def _fill(target: Bytes, mapping: mmap.mmap, file: int) -> None:
    """Copy in pieces, each of which the page cache then lets go."""
    source = np.frombuffer(mapping, np.uint8)
    for start in range(0, len(target), _PIECE):
        part = slice(start, min(start + _PIECE, len(target)))
        target[part] = source[part]
        mapping.madvise(mmap.MADV_DONTNEED, start, part.stop - start)
        os.posix_fadvise(file, start, part.stop - start, os.POSIX_FADV_DONTNEED)


def _mapped_large(address: int, size: int) -> int:
    """Bytes that this process has mapped at [address, address + size) in large pages of files."""
    total, inside = 0, False
    for line in _MAPS.read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            begin, end = (int(part, 16) for part in found.groups())
            inside = begin < address + size and address < end
        elif inside and line.startswith("FilePmdMapped:"):
            total += int(line.split()[1]) << 10
    return total


def _advise(mapping: mmap.mmap, advice: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a kernel without it
            mapping.madvise(advice)
