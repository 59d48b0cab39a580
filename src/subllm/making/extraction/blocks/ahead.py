"""Reads the next block's weights while one is at work on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Read = Callable[[str], Floats]


class ReadAhead:
    """`read` is called with the full names of a block's parameters, on a thread of its own; what
    it raises is raised by whoever asks for that block."""

    def __init__(self, read: Read, names: Callable[[int], Sequence[str]], blocks: int) -> None:
        self._read, self._names, self._blocks = read, names, blocks
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="subllm-reader")
        self._begun: tuple[int, Future[dict[str, Floats]]] | None = None

    def block(self, layer: int) -> dict[str, Floats]:
        """All parameters of a block, by full name; the one behind it is read from now on."""
        begun, self._begun = self._begun, None
        if begun is not None and begun[0] == layer:
            found = begun[1].result()
        else:
            if begun is not None:
                begun[1].cancel()
            found = self._all(layer)
        if layer + 1 < self._blocks:
            self._begun = layer + 1, self._thread.submit(self._all, layer + 1)
        return found

    def _all(self, layer: int) -> dict[str, Floats]:
        return {name: self._read(name) for name in self._names(layer)}
