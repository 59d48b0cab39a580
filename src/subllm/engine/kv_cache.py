"""Who holds KV memory: a budget in bytes, and the prefixes kept for reuse.

Editors send nearly the same prompt again and again, and often abort. So the slabs of
finished requests stay, and a new request starts from the one that shares the longest prefix
with it. Kept slabs give way, those used longest ago first, whenever running requests need the
room.

Memory is counted in blocks of KV_BLOCK tokens. Where the backend lets slabs share blocks
(`Backend.kv_shares`), a block counts once, however many slabs hold it: a fork shares the
full blocks of its prefix; the last one, when it is not full, will be written to and counts
for both. A slab that is written to where it shares blocks gets blocks of its own. So what an
edit left behind of the prompt before it is the part behind the cursor, and goes first.

What no request needs may be lent to a draft model, which gives it back at once when asked.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from subllm.engine.backend import KV_BLOCK, Backend, TokenArray
from subllm.engine.kv_room import KvRoom

MIN_PREFIX = 16
"""A shared prefix shorter than this is computed again: copying is no gain."""

_ages = itertools.count()  # of all caches, so that they can be compared


def blocks(tokens: int) -> int:
    """Blocks that hold so many tokens."""
    return -(-tokens // KV_BLOCK)


def common_prefix(a: TokenArray, b: TokenArray) -> int:
    """How many leading tokens are equal."""
    size = min(len(a), len(b))
    different = np.flatnonzero(a[:size] != b[:size])
    return int(different[0]) if len(different) else size


class KvCache:
    """Accounts every slab of one backend, in a room of its own until it joins another.
    `budget` in bytes, rounded down to whole blocks; at most `keep` slabs are kept."""

    def __init__(self, backend: Backend, budget: int, keep: int) -> None:
        self._backend = backend
        self._block_bytes = KV_BLOCK * backend.kv_bytes_per_token
        self._keep = keep
        self._held: dict[int, list[int]] = {}  # handle -> its blocks, by number
        self._uses: Counter[int] = Counter()  # of each block, slabs that hold it
        self._running: Counter[int] = Counter()  # the same of slabs that are not kept
        self._next_block = 0
        self._kept: dict[int, TokenArray] = {}  # handle -> its tokens, oldest first
        self._used: dict[int, int] = {}  # handle -> when, of kept slabs
        self._lent = 0  # blocks
        self._reclaim: Callable[[], None] = lambda: None
        self._room = KvRoom(self._whole(budget))
        self._room.join(self)

    def join(self, room: KvRoom) -> None:
        """Takes its memory from `room` from now on."""
        self._room.leave(self)
        self._room = room
        room.join(self)

    @property
    def budget(self) -> int:
        return self._whole(self._room.budget)

    @budget.setter
    def budget(self, value: int) -> None:
        """Of the whole room; see `KvRoom`."""
        self._room.budget = self._whole(value)

    @property
    def held_tokens(self) -> int:
        """Room taken by running requests (what only kept prefixes hold is not counted)."""
        return KV_BLOCK * len(self._running)

    @property
    def charged(self) -> int:
        """Bytes of everything: running, kept (at least what the backend has allocated) and lent."""
        return (len(self._uses) + self._lent) * self._block_bytes

    @property
    def running(self) -> int:
        return len(self._running) * self._block_bytes

    @property
    def lent(self) -> int:
        return self._lent * self._block_bytes

    def may_begin(self) -> bool:
        """Whether no other engine's request waits for memory; see `KvRoom`."""
        return self._room.may_begin(self)

    def claim(self) -> None:
        self._room.claim(self)

    def waive(self) -> None:
        self._room.waive(self)

    def attach(
        self, tokens: TokenArray, live: Iterable[tuple[int, TokenArray]] = ()
    ) -> tuple[int, int] | None:
        """A slab with room for `tokens`, and how many of them it holds already.

        At least the last token is left to compute. `live` are slabs of running requests
        with what they have computed. None: no room until a request ends.
        """
        source, shared = None, MIN_PREFIX - 1
        for handle, known in [*live, *self._kept.items()]:
            if len(known) <= shared or known[shared] != tokens[min(shared, len(tokens) - 1)]:
                continue  # no longer than what was found
            length = common_prefix(tokens[:-1], known)
            if length > shared:
                source, shared = handle, length
        if source is None:
            empty = self.open(len(tokens))
            return None if empty is None else (empty, 0)
        kept = self._kept.get(source)
        if kept is None or self._backend.kv_shares or 2 * shared < len(kept):  # worth a copy
            fork = self._fork(source, shared, len(tokens))
            if fork is not None:
                return fork, shared
        if kept is None:
            return None
        used = self._wake(source)
        if self._write(source, shared, len(tokens)):
            return source, shared
        self._rest(source, kept, used)
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
        for other, known in list(self._kept.items()):
            if known[MIN_PREFIX - 1] != tokens[MIN_PREFIX - 1]:
                continue
            common = common_prefix(known, tokens)
            if common == len(tokens):  # all of it is kept already
                self.drop(handle)
                self._rest(other, known)
                return
            if common == len(known):
                self.drop(other)
        self._rest(self._cut(handle, len(tokens)), tokens.copy())
        while len(self._kept) > self._keep:
            self.drop_oldest()
        self._room.trim()

    def drop(self, handle: int) -> None:
        """Frees a slab now."""
        running = self._kept.pop(handle, None) is None
        self._used.pop(handle, None)
        for block in self._held.pop(handle):
            _release(self._uses, block)
            if running:
                _release(self._running, block)
        self._backend.kv_close(handle)

    def oldest(self, spare: int | None = None) -> int | None:
        handle = self._oldest(spare)
        return None if handle is None else self._used[handle]

    def drop_oldest(self, spare: int | None = None) -> None:
        handle = self._oldest(spare)
        if handle is not None:
            self.drop(handle)

    def take_back(self) -> None:
        if self._lent:
            self._reclaim()
            self._lent = 0

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
        """Frees everything, and leaves a room that it shares."""
        # First, as others count on it whatever comes of the rest.
        self.join(KvRoom(self._whole(self._room.budget)))
        for handle in list(self._held):
            self.drop(handle)

    def _whole(self, size: int) -> int:
        return size // self._block_bytes * self._block_bytes

    def _oldest(self, spare: int | None) -> int | None:
        return next((handle for handle in self._kept if handle != spare), None)

    def _rest(self, handle: int, tokens: TokenArray, used: int | None = None) -> None:
        """It is kept, as one that was used now, or then."""
        if handle in self._kept:
            del self._kept[handle]
        else:
            for block in self._held[handle]:
                _release(self._running, block)
        self._kept[handle] = tokens
        self._used[handle] = next(_ages) if used is None else used
        if used is not None:
            self._kept = dict(sorted(self._kept.items(), key=lambda item: self._used[item[0]]))

    def _wake(self, handle: int) -> int:
        """It is kept no more, but held by a request; when it was used."""
        del self._kept[handle]
        self._running.update(self._held[handle])
        return self._used.pop(handle)

    def _cut(self, handle: int, length: int) -> int:
        """The slab without what it has room for beyond `length`, perhaps under another name."""
        held = self._held[handle]
        if not self._backend.kv_shares or len(held) <= blocks(length):
            return handle
        short = self._backend.kv_fork(handle, length)
        self._backend.kv_close(handle)
        for block in held[blocks(length) :]:
            _release(self._uses, block)
            _release(self._running, block)
        del self._held[handle]
        self._held[short] = held[: blocks(length)]
        return short

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
        if not self._make_room(more, [held[index] for index in again]):
            return False
        for index in again:
            if self._uses[held[index]] > 1:
                _release(self._uses, held[index])
                _release(self._running, held[index])
                held[index] = self._new_block()
        held += [self._new_block() for _ in range(more)]
        return True

    def _hold(self, handle: int, same: Iterable[int], count: int) -> int:
        """Enters a new slab of `count` blocks, of which the first are those of another."""
        held = list(same)
        self._uses.update(held)
        self._running.update(held)
        self._held[handle] = held + [self._new_block() for _ in range(count - len(held))]
        return handle

    def _new_block(self) -> int:
        self._next_block += 1
        self._uses[self._next_block] = self._running[self._next_block] = 1
        return self._next_block

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

        def wanted() -> int:
            copies = sum(self._uses[block] > 1 for block in written)
            return (len(self._uses) + self._lent + new + copies) * self._block_bytes

        if wanted() <= self._room.left_for(self):
            return True
        least = len(self._running) + new + sum(self._running[block] > 1 for block in written)
        if spare in self._kept:
            least += sum(block not in self._running for block in self._held[spare])
        lent = self._room.most_for(self, reclaim=False)
        if (least + self._lent) * self._block_bytes > lent:
            if not reclaim or least * self._block_bytes > self._room.most_for(self, reclaim=True):
                return False
            self._room.take_back()
        while wanted() > self._room.left_for(self):
            if not self._room.drop_oldest(self, spare):
                return False
        return True


def _release(uses: Counter[int], block: int) -> None:
    uses[block] -= 1
    if not uses[block]:
        del uses[block]
