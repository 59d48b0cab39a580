"""Who holds KV memory: a budget in bytes, and the prefixes kept for reuse.

Editors send nearly the same prompt again and again, and often abort. So the slabs of
the last few requests stay, and a new request starts from the one that shares the
longest prefix with it. Kept slabs give way whenever running requests need the room.

Memory is counted in blocks of KV_BLOCK tokens. Where the backend lets slabs share blocks
(`Backend.kv_shares`), a block counts once, however many slabs hold it: a fork shares the
full blocks of its prefix; the last one, when it is not full, will be written to and counts
for both. A slab that is written to where it shares blocks gets blocks of its own.

What no request needs may be lent to a draft model, which gives it back at once when asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from subllm.runtime.backend import KV_BLOCK, Backend, TokenArray

MIN_PREFIX = 16
"""A shared prefix shorter than this is computed again: copying is no gain."""


def blocks(tokens: int) -> int:
    """Blocks that hold so many tokens."""
    return -(-tokens // KV_BLOCK)


def common_prefix(a: TokenArray, b: TokenArray) -> int:
    """How many leading tokens are equal."""
    size = min(len(a), len(b))
    different = np.flatnonzero(a[:size] != b[:size])
    return int(different[0]) if len(different) else size


class KvCache:
    """Accounts every slab of one backend. `budget` in bytes, rounded down to whole blocks."""

    def __init__(self, backend: Backend, budget: int, keep: int) -> None:
        self._backend = backend
        self._block_bytes = KV_BLOCK * backend.kv_bytes_per_token
        self._budget = budget // self._block_bytes
        self._keep = keep
        self._held: dict[int, list[int]] = {}  # handle -> its blocks, by number
        self._uses: Counter[int] = Counter()  # of each block, slabs that hold it
        self._next_block = 0
        self._kept: dict[int, TokenArray] = {}  # handle -> its tokens, oldest first
        self._lent = 0  # blocks
        self._reclaim: Callable[[], None] = lambda: None

    @property
    def budget(self) -> int:
        return self._budget * self._block_bytes

    @budget.setter
    def budget(self, value: int) -> None:
        """A lower budget takes kept slabs at once; running requests give way as they grow."""
        self._budget = value // self._block_bytes
        self._trim()

    @property
    def held_tokens(self) -> int:
        """Room taken by running requests (what only kept prefixes hold is not counted)."""
        running = [held for handle, held in self._held.items() if handle not in self._kept]
        return KV_BLOCK * len({block for held in running for block in held})

    @property
    def charged(self) -> int:
        """Bytes of everything: running, kept (at least what the backend has allocated) and lent."""
        return self._charged() * self._block_bytes

    def attach(
        self, tokens: TokenArray, live: Iterable[tuple[int, TokenArray]] = ()
    ) -> tuple[int, int] | None:
        """A slab with room for `tokens`, and how many of them it holds already.

        At least the last token is left to compute. `live` are slabs of running requests
        with what they have computed. None: no room until a request ends.
        """
        source, shared = None, MIN_PREFIX - 1
        for handle, known in [*live, *self._kept.items()]:
            length = common_prefix(tokens[:-1], known)
            if length > shared:
                source, shared = handle, length
        if source is None:
            empty = self.open(len(tokens))
            return None if empty is None else (empty, 0)
        kept = self._kept.get(source)
        if kept is None or 2 * shared < len(kept):  # worth a copy
            fork = self._fork(source, shared, len(tokens))
            if fork is not None:
                return fork, shared
        if kept is None:
            return None
        del self._kept[source]
        if self._write(source, shared, len(tokens)):
            return source, shared
        self._kept[source] = kept
        empty = self.open(len(tokens))  # without it there may be room
        return None if empty is None else (empty, 0)

    def grow(self, handle: int, tokens: int) -> bool:
        """Makes sure that `handle` may hold so many tokens; False: no room."""
        return self._write(handle, len(self._held[handle]) * KV_BLOCK, tokens)

    def open(self, tokens: int) -> int | None:
        """An empty slab with room for `tokens`, or None."""
        if not self._make_room(blocks(tokens)):
            return None
        return self._hold(self._backend.kv_open(), (), blocks(tokens))

    def keep(self, handle: int, tokens: TokenArray) -> None:
        """A request is over: its slab, holding `tokens`, may serve a later one."""
        if not self._keep or len(tokens) < MIN_PREFIX:
            self.drop(handle)
            return
        self._kept[handle] = tokens.copy()
        self._trim()

    def drop(self, handle: int) -> None:
        """Frees a slab now."""
        self._kept.pop(handle, None)
        for block in self._held.pop(handle):
            self._release(block)
        self._backend.kv_close(handle)

    def lend(self, size: int, reclaim: Callable[[], None]) -> bool:
        """Lends `size` bytes in all for memory that is not this backend's; False, and what was
        lent stays so, where no room is left. Kept slabs give way. `reclaim` is called when
        requests need the room: the memory must be freed before it returns."""
        wanted = -(-size // self._block_bytes)
        if wanted > self._lent and not self._make_room(wanted - self._lent, reclaim=False):
            return False
        self._lent, self._reclaim = wanted, reclaim
        return True

    def clear(self) -> None:
        """Frees everything."""
        for handle in list(self._held):
            self.drop(handle)

    def _trim(self) -> None:
        """Drops the oldest kept slabs that are too many, or more than the budget allows."""
        while len(self._kept) > self._keep or (self._kept and self._charged() > self._budget):
            self.drop(next(iter(self._kept)))
        if self._charged() > self._budget:
            self._take_back()

    def _charged(self) -> int:
        return len(self._uses) + self._lent

    def _take_back(self) -> None:
        if self._lent:
            self._reclaim()
            self._lent = 0

    def _fork(self, source: int, length: int, tokens: int) -> int | None:
        """A slab that starts with `length` tokens of `source`, with room for `tokens`."""
        same = self._held[source][: length // KV_BLOCK] if self._backend.kv_shares else []
        if not self._make_room(blocks(tokens) - len(same), spare=source):
            return None
        return self._hold(self._backend.kv_fork(source, length), same, blocks(tokens))

    def _write(self, handle: int, start: int, tokens: int) -> bool:
        """Makes the positions from `start` up to `tokens` the slab's own; False: no room."""
        held = self._held[handle]
        again = range(start // KV_BLOCK, min(blocks(tokens), len(held)))
        more = max(0, blocks(tokens) - len(held))
        if not (again or more):  # nearly every token of a running request
            return True
        if not self._make_room(more, [held[index] for index in again], spare=handle):
            return False
        for index in again:
            if self._uses[held[index]] > 1:
                self._release(held[index])
                held[index] = self._new_block()
        held += [self._new_block() for _ in range(more)]
        return True

    def _hold(self, handle: int, same: Iterable[int], count: int) -> int:
        """Enters a new slab of `count` blocks, of which the first are those of another."""
        held = list(same)
        self._uses.update(held)
        self._held[handle] = held + [self._new_block() for _ in range(count - len(held))]
        return handle

    def _new_block(self) -> int:
        self._next_block += 1
        self._uses[self._next_block] = 1
        return self._next_block

    def _release(self, block: int) -> None:
        self._uses[block] -= 1
        if not self._uses[block]:
            del self._uses[block]

    def _make_room(
        self,
        new: int,
        written: Sequence[int] = (),
        *,
        spare: int | None = None,
        reclaim: bool = True,
    ) -> bool:
        """Drops kept slabs, oldest first and never `spare`, and takes back what is lent, until
        there is room for `new` blocks and for copies of those `written` blocks that are
        shared. False, and nothing is dropped, when that is not enough."""

        def fits(uses: Counter[int]) -> bool:
            copies = sum(uses[block] > 1 for block in written)
            return len(uses) + self._lent + new + copies <= self._budget

        if fits(self._uses):
            return True
        candidates = [handle for handle in self._kept if handle != spare]
        given = Counter(block for handle in candidates for block in self._held[handle])
        if reclaim and not fits(self._uses - given):
            self._take_back()
        if not fits(self._uses - given):
            return False
        while not fits(self._uses):
            self.drop(candidates.pop(0))
        return True
