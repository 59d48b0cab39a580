"""A read-only mapped file whose pages can be given back."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt

from subllm.errors import WeightsError


class MappedFile:
    """The bytes of a file, mapped. `release` drops resident pages, not the mapping.

    Raises WeightsError when the file cannot be opened or is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is empty"
            raise WeightsError(f"cannot read {path}: {reason}; fetch it again") from error
        self.size = len(self._map)

    @property
    def buffer(self) -> mmap.mmap:
        return self._map

    def bytes_at(self, offset: int, size: int) -> npt.NDArray[np.uint8]:
        """A view, uint8 [size], on the mapping; it must not outlive `close`."""
        return np.frombuffer(self._map, np.uint8, size, offset)

    def release(self) -> None:
        """Resident pages go back to the system; a later access reads them again."""
        if hasattr(self._map, "madvise"):  # not on Windows
            self._map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        self._map.close()
