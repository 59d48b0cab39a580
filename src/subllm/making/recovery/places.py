"""Which values of a tensor are kept."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from subllm.making.recovery import fused


class Places:
    """Where the kept values of a flat tensor are; None for all of it. A bit for each place."""

    def __init__(self, mask: torch.Tensor | None, size: int, device: torch.device) -> None:
        """mask: bool, flat."""
        self.size = size
        self.count = size
        self._bits: torch.Tensor | None = None
        self._starts: torch.Tensor | None = None
        if mask is None or bool(mask.all()):
            return
        flags = mask.numpy()
        index = np.flatnonzero(flags)
        self.count = len(index)
        packed = np.zeros(-(-size // 64) * 8, np.uint8)
        packed[: -(-size // 8)] = np.packbits(flags, bitorder="little")
        self._bits = torch.from_numpy(packed.view(np.int64)).to(device)
        starts = index[:: fused.chunk()].astype(np.int32)
        self._starts = torch.from_numpy(starts).to(device)

    def digest(self) -> str:
        """Tells apart which values are kept: of the distances between them, a byte each, or of
        the places as int32 where one does not fit."""
        index = self.index()
        data = b""
        if index is not None:
            gaps = np.diff(index.cpu().numpy(), prepend=0)
            near = gaps.max(initial=0) <= 255
            data = (gaps.astype(np.uint8) if near else index.cpu().numpy().astype("<i4")).tobytes()
        return hashlib.sha256(data).hexdigest()

    def index(self) -> torch.Tensor | None:
        """int64 [count], made when asked for."""
        if self._bits is None:
            return None
        if self._bits.device.type == "cpu":
            packed = self._bits.numpy().view(np.uint8)
            flags = np.unpackbits(packed, count=self.size, bitorder="little").view(np.bool_)
            return torch.from_numpy(np.flatnonzero(flags))
        shifts = torch.arange(8, dtype=torch.uint8, device=self._bits.device)
        found = (self._bits.view(torch.uint8)[:, None] >> shifts) & 1
        return found.flatten()[: self.size].nonzero().flatten()

    def stored(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The bits as int64 words, the first place in the lowest, and the place of the first
        of each `fused.chunk` kept values; None and None for the whole tensor."""
        return self._bits, self._starts
