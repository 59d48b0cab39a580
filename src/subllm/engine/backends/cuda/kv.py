"""Keys and values in blocks of one pool: a slab is a list of blocks, which slabs share until one
of them writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from subllm.engine.backend import KV_BLOCK
from subllm.errors import BackendError
from subllm.models.arch.spec import ArchSpec


@dataclass
class Slab:
    """The blocks of a sequence in order, and how many positions were computed."""

    blocks: list[int] = field(default_factory=list)
    length: int = 0


class KvPool:
    """keys[layer], values[layer]: [blocks, KV_BLOCK, kv_heads, head_dim]. They are replaced when
    the pool grows, which `generation` tells."""

    def __init__(
        self, spec: ArchSpec, dtype: torch.dtype, device: torch.device, blocks: int
    ) -> None:
        """blocks: to begin with."""
        shape = (blocks, KV_BLOCK, spec.num_kv_heads, spec.head_dim)
        self.keys = [torch.empty(shape, dtype=dtype, device=device) for _ in range(spec.num_layers)]
        self.values = [torch.empty_like(plane) for plane in self.keys]
        self.generation = 0
        self._free = list(range(blocks - 1, -1, -1))
        self._uses = [0] * blocks
        self._slabs: dict[int, Slab] = {}
        self._next = 0

    @property
    def block_bytes(self) -> int:
        """Of a block in all layers."""
        return sum(plane[0].nbytes for plane in (*self.keys, *self.values))

    @property
    def nbytes(self) -> int:
        """Of what slabs hold."""
        return (len(self._uses) - len(self._free)) * self.block_bytes

    def open(self) -> int:
        self._next += 1
        self._slabs[self._next] = Slab()
        return self._next

    def of(self, handle: int) -> Slab:
        """Raises BackendError for one that does not exist."""
        slab = self._slabs.get(handle) if isinstance(handle, int) else None
        if slab is None:
            raise BackendError(f"KV slab {handle!r} does not exist")
        return slab

    def close(self, handle: int) -> None:
        for block in self.of(handle).blocks:
            self._release(block)
        del self._slabs[handle]

    def fork(self, source: int, length: int) -> int:
        """Full blocks are shared, what is behind them is copied."""
        slab = self.of(source)
        if not 0 <= length <= slab.length:
            raise BackendError(f"a slab holds {slab.length} tokens; {length} cannot be taken over")
        full, rest = divmod(length, KV_BLOCK)
        copied = self._take(1) if rest else []
        if copied:
            self._copy(slab.blocks[full], copied[0])
        for block in slab.blocks[:full]:
            self._uses[block] += 1
        handle = self.open()
        self._slabs[handle] = Slab(slab.blocks[:full] + copied, length)
        return handle

    def write(self, writes: Sequence[tuple[int, int, int]]) -> None:
        """(handle, start, count) each: makes these positions the slab's own, contents before
        `start` kept. Memory is had for all of them before anything changes. Raises BackendError
        for a gap before `start`."""
        plans = []
        for handle, start, count in writes:
            slab = self.of(handle)
            if not 0 <= start <= slab.length:
                raise BackendError(f"a slab holds {slab.length} tokens; none can start at {start}")
            last = -(-(start + count) // KV_BLOCK)
            again = range(start // KV_BLOCK, min(last, len(slab.blocks)))
            shared = [index for index in again if self._uses[slab.blocks[index]] > 1]
            plans.append((slab, start, count, shared, max(0, last - len(slab.blocks))))
        fresh = self._take(sum(len(shared) + more for *_, shared, more in plans))
        for slab, start, count, shared, more in plans:
            for index in shared:
                old, new = slab.blocks[index], fresh.pop()
                if start > index * KV_BLOCK:
                    self._copy(old, new)
                self._release(old)
                slab.blocks[index] = new
            slab.blocks += [fresh.pop() for _ in range(more)]
            slab.length = start + count

    def slots(self, handle: int, start: int, count: int) -> list[int]:
        """Where positions lie: block * KV_BLOCK + place."""
        blocks = self.of(handle).blocks
        return [
            blocks[i // KV_BLOCK] * KV_BLOCK + i % KV_BLOCK for i in range(start, start + count)
        ]

    def _take(self, count: int) -> list[int]:
        if count > len(self._free):
            self._grow(max(2 * len(self._uses), len(self._uses) + count - len(self._free)))
        taken = [self._free.pop() for _ in range(count)]
        for block in taken:
            self._uses[block] = 1
        return taken

    def _release(self, block: int) -> None:
        self._uses[block] -= 1
        if not self._uses[block]:
            self._free.append(block)

    def _copy(self, source: int, target: int) -> None:
        for plane in (*self.keys, *self.values):
            plane[target].copy_(plane[source])

    def _grow(self, blocks: int) -> None:
        """Plane by plane, so that only one is there twice. Where memory ends on the way, planes
        that grew stay so, and all that was held stays."""
        self.generation += 1
        old = len(self._uses)
        for planes in (self.keys, self.values):
            for layer, plane in enumerate(planes):
                if len(plane) < blocks:
                    grown = plane.new_empty((blocks, *plane.shape[1:]))
                    grown[:old].copy_(plane[:old])
                    planes[layer] = grown
                    del plane
        self._uses += [0] * (blocks - old)
        self._free[:0] = range(blocks - 1, old - 1, -1)
