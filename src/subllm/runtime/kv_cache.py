"""Who holds KV memory: a budget in blocks, and the prefixes kept for reuse.

Editors send nearly the same prompt again and again, and often abort. So the slabs of
the last few requests stay, and a new request starts from the one that shares the
longest prefix with it. Kept slabs give way whenever running requests need the room.
"""

from __future__ import annotations

from collections.abc import Iterable

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
    """Accounts every slab of one backend. `budget` in tokens, rounded up to blocks."""

    def __init__(self, backend: Backend, budget: int, keep: int) -> None:
        self._backend = backend
        self._budget = blocks(budget)
        self._keep = keep
        self._held: dict[int, int] = {}  # handle -> blocks
        self._kept: dict[int, TokenArray] = {}  # handle -> its tokens, oldest first

    @property
    def held_tokens(self) -> int:
        """Room taken by running requests (kept prefixes are not counted)."""
        return KV_BLOCK * sum(n for h, n in self._held.items() if h not in self._kept)

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
            return (self._open(len(tokens)), 0) if self._make_room(blocks(len(tokens))) else None
        kept = self._kept.get(source)
        worth_a_copy = kept is None or 2 * shared < len(kept)
        if worth_a_copy and self._make_room(blocks(len(tokens)), spare=source):
            handle = self._backend.kv_fork(source, shared)
            self._held[handle] = blocks(len(tokens))
            return handle, shared
        if kept is None:
            return None
        del self._kept[source]
        if self.grow(source, len(tokens)):
            return source, shared
        self._kept[source] = kept
        return None

    def grow(self, handle: int, tokens: int) -> bool:
        """Makes sure that `handle` may hold so many tokens; False: no room."""
        more = blocks(tokens) - self._held[handle]
        if more <= 0:
            return True
        if not self._make_room(more):
            return False
        self._held[handle] += more
        return True

    def open(self, tokens: int) -> int | None:
        """An empty slab with room for `tokens`, or None."""
        return self._open(tokens) if self._make_room(blocks(tokens)) else None

    def keep(self, handle: int, tokens: TokenArray) -> None:
        """A request is over: its slab, holding `tokens`, may serve a later one."""
        if not self._keep or len(tokens) < MIN_PREFIX:
            self.drop(handle)
            return
        self._kept[handle] = tokens.copy()
        while len(self._kept) > self._keep:
            self.drop(next(iter(self._kept)))

    def drop(self, handle: int) -> None:
        """Frees a slab now."""
        self._kept.pop(handle, None)
        del self._held[handle]
        self._backend.kv_close(handle)

    def clear(self) -> None:
        """Frees everything."""
        for handle in list(self._held):
            self.drop(handle)

    def _open(self, tokens: int) -> int:
        handle = self._backend.kv_open()
        self._held[handle] = blocks(tokens)
        return handle

    def _make_room(self, wanted: int, spare: int | None = None) -> bool:
        """Drops kept slabs, oldest first and never `spare`, until `wanted` blocks fit."""
        candidates = [handle for handle in self._kept if handle != spare]
        free = self._budget - sum(self._held.values())
        if free + sum(self._held[handle] for handle in candidates) < wanted:
            return False
        while free < wanted:
            handle = candidates.pop(0)
            free += self._held[handle]
            self.drop(handle)
        return True
