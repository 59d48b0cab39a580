"""KV memory of one sequence: contiguous slabs per layer that grow by blocks."""

from __future__ import annotations

import torch

from subllm.engine.backend import KV_BLOCK
from subllm.models.arch.spec import ArchSpec


class KvSlab:
    """keys[layer], values[layer]: [kv_heads, capacity, head_dim], compute dtype."""

    def __init__(self, spec: ArchSpec, dtype: torch.dtype, device: torch.device) -> None:
        self._shape = (spec.num_kv_heads, 0, spec.head_dim)
        empty = [torch.empty(self._shape, dtype=dtype, device=device)] * spec.num_layers
        self.keys, self.values = list(empty), list(empty)

    @property
    def capacity(self) -> int:
        """Tokens that fit before the slab must grow."""
        return int(self.keys[0].shape[1])

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in self.keys) + sum(t.nbytes for t in self.values)

    def ensure(self, tokens: int) -> None:
        """Room for `tokens`, contents kept; grows layer by layer."""
        if tokens <= self.capacity:
            return
        capacity = -(-tokens // KV_BLOCK) * KV_BLOCK
        for planes in (self.keys, self.values):
            for layer, old in enumerate(planes):
                new = old.new_empty((old.shape[0], capacity, old.shape[2]))
                new[:, : old.shape[1]] = old
                planes[layer] = new

    def copy_from(self, source: KvSlab, length: int) -> None:
        """Takes over the first `length` positions of `source`."""
        self.ensure(length)
        for mine, theirs in ((self.keys, source.keys), (self.values, source.values)):
            for target, origin in zip(mine, theirs, strict=True):
                target[:, :length] = origin[:, :length]
