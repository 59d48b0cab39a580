"""State between two blocks, so that a killed extraction goes on where it was.

A directory per plan: `block-0007.packed` for every finished block and one
`state.safetensors` with the hidden states that enter the next. Files appear by
rename; the state names the next block, so a block file beyond it is simply made
again.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

# Saving costs time too: at most once in this many seconds.
_INTERVAL_S = 4.0


class Checkpoint:
    """Hidden states by name ("calibration", "python.dense", ...) before block `next`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._state = directory / "state.safetensors"
        self._saved = time.monotonic()

    def block_path(self, layer: int) -> Path:
        return self.directory / f"block-{layer:04d}.packed"

    def load(self, streams: dict[str, torch.Tensor]) -> int:
        """Fill `streams` (same names and shapes) and return the next block; 0 with
        `streams` untouched when there is no usable state."""
        try:
            with safe_open(self._state, framework="pt") as file:
                layer = int((file.metadata() or {}).get("next", "0"))
                known = set(file.keys())
                shapes = {n: tuple(file.get_slice(n).get_shape()) for n in known}
                fits = known == set(streams) and all(
                    shapes[n] == tuple(t.shape) for n, t in streams.items()
                )
                if not fits or not all(self.block_path(i).exists() for i in range(layer)):
                    return 0
                for name, tensor in streams.items():
                    tensor.copy_(file.get_tensor(name))
                return layer
        except (OSError, SafetensorError, ValueError):
            return 0

    def save(self, next_layer: int, streams: dict[str, torch.Tensor]) -> None:
        """Written beside and renamed; skipped when the last save is recent."""
        if time.monotonic() - self._saved < _INTERVAL_S:
            return
        beside = self._state.with_suffix(".partial")
        save_file(streams, beside, metadata={"next": str(next_layer)})
        beside.replace(self._state)
        self._saved = time.monotonic()
