"""Where a recovery stands, on disk.

    magic, then the length of the header as a little-endian u64, its CRC-32 as a u32
    the header: JSON, {"about": {...}, "tensors": [[name, dtype, count, crc32], ...]}
    the tensors' bytes, in that order

The file appears by rename: a kill -9 leaves the old state or the new one, and sums tell
damage. Writing it takes no memory worth mentioning.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import torch

from subllm.errors import CorruptError
from subllm.files import Replacement
from subllm.making.recovery.masters import Masters
from subllm.models.store.files import check_space, disk_errors

_MAGIC = b"subllm recovery 1\n"
_PIECE = 1 << 24


class StateFile:
    """The one state of a recovery, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "recovery.state"

    def save(self, masters: Masters, about: dict[str, Any]) -> None:
        """about: JSON-ready. Raises DiskFullError (before the first byte, where that can be
        known); the state before is then as it was."""
        table, size = [], 0
        for name, tensor in _tensors(masters):
            table.append([name, str(tensor.dtype), tensor.numel(), zlib.crc32(_bytes(tensor))])
            size += tensor.numel() * tensor.element_size()
        header = json.dumps({"about": about, "tensors": table}).encode()
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            check_space(self.path.parent, size + len(header))
            with Replacement(self.path) as new:
                new.file.write(_MAGIC + len(header).to_bytes(8, "little"))
                new.file.write(zlib.crc32(header).to_bytes(4, "little") + header)
                for _, tensor in _tensors(masters):
                    new.file.write(_bytes(tensor))

    def about(self) -> dict[str, Any] | None:
        """What the state says of itself; None where there is none. Raises CorruptError."""
        with disk_errors(self.path):
            try:
                with self.path.open("rb") as file:
                    about: dict[str, Any] = self._header(file)["about"]
                    return about
            except FileNotFoundError:
                return None

    def load(self, masters: Masters) -> None:
        """Fill the masters, of the same tensors, and write them to what the model computes
        with. Raises CorruptError with the masters as they were."""
        shapes = [[name, str(t.dtype), t.numel()] for name, t in _tensors(masters)]
        sizes = [t.numel() * t.element_size() for _, t in _tensors(masters)]
        with disk_errors(self.path), self.path.open("rb") as file:
            table = self._header(file)["tensors"]
            if [entry[:3] for entry in table] != shapes:
                raise self._corrupt("it is of other tensors")
            begin = file.tell()
            for (name, _, _, crc), size in zip(table, sizes, strict=True):
                if _crc(file, size) != crc:
                    raise self._corrupt(f"{name} does not match its sum")
            file.seek(begin)
            for learned in masters:
                states = learned.states()
                for tensor in states.values():
                    self._fill(tensor, file)
                learned.restore(states)

    def _fill(self, tensor: torch.Tensor, file: BufferedReader) -> None:
        host = tensor if tensor.device.type == "cpu" else tensor.cpu()
        if file.readinto(_bytes(host)) != host.numel() * host.element_size():
            raise self._corrupt("it ends early")
        if host is not tensor:
            tensor.copy_(host)

    def _header(self, file: BinaryIO) -> dict[str, Any]:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise self._corrupt("it is no state of this version")
        size = int.from_bytes(file.read(8), "little")
        crc = int.from_bytes(file.read(4), "little")
        header = file.read(min(size, self.path.stat().st_size))
        if len(header) != size or zlib.crc32(header) != crc:
            raise self._corrupt("its header does not match its sum")
        parsed: dict[str, Any] = json.loads(header)
        return parsed

    def _corrupt(self, why: str) -> CorruptError:
        return CorruptError(f"{self.path} is damaged: {why}; remove it to start over")


def _tensors(masters: Masters) -> Iterator[tuple[str, torch.Tensor]]:
    for learned in masters:
        for kind, tensor in learned.states().items():
            yield f"{learned.name}:{kind}", tensor


def _bytes(tensor: torch.Tensor) -> memoryview:
    """A view on a CPU tensor's bytes, a copy of another's."""
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data


def _crc(file: BinaryIO, size: int) -> int:
    crc, left = 0, size
    while left and (piece := file.read(min(left, _PIECE))):
        crc = zlib.crc32(piece, crc)
        left -= len(piece)
    return crc if not left else -1
