"""Which tokens run in the next step: continuous batching with prefill in chunks.

Requests are served first come, first served. Every decoding request gets one token a
step; what is left of the step goes to prompts, in pieces, so that a long prompt never
stalls the others. When KV memory runs out, the youngest request gives its memory up
and waits again, first in the queue; its tokens are kept and computed anew later.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from subllm.runtime.kv_cache import MIN_PREFIX, KvCache, common_prefix
from subllm.runtime.sequence import Sequence


@dataclass(frozen=True)
class Work:
    """The next `count` pending tokens of a sequence; `last`: its next token is drawn."""

    sequence: Sequence
    count: int

    @property
    def last(self) -> bool:
        return self.count == self.sequence.pending

    @property
    def decodes(self) -> bool:
        """Whether it is but the one token that was drawn last."""
        return self.sequence.pending == 1 and self.sequence.completion_length > 0


class Scheduler:
    """max_batch: requests that run at once. prefill_chunk: prompt tokens of a step; a
    quarter of it while others decode, so that they keep flowing."""

    def __init__(self, kv: KvCache, *, max_batch: int, prefill_chunk: int) -> None:
        self._kv = kv
        self._max_batch = max_batch
        self._prefill_chunk = prefill_chunk
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # oldest first
        self._turn = 0

    def __len__(self) -> int:
        return len(self.waiting) + len(self.running)

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def plan(self, allowance: int | None = None) -> list[Work]:
        """The work of one step, `allowance` tokens at most; empty only when there is none.

        Where the allowance is not enough for all, prompts have a quarter of it (one token at
        least), and those decode whose last turn is longest ago.
        """
        work = self._plan(allowance, prompts_first=True)
        if not work and allowance is not None:  # no prompt could use its part
            work = self._plan(allowance, prompts_first=False)
        return work

    def _plan(self, allowance: int | None, *, prompts_first: bool) -> list[Work]:
        decoding = [sequence for sequence in self.running if sequence.pending == 1]
        room = max(1, self._prefill_chunk // 4) if decoding else self._prefill_chunk
        if allowance is not None:
            prompts = len(decoding) < len(self.running) or (
                self.waiting and len(self.running) < self._max_batch
            )
            least = max(1, allowance // 4) if prompts and prompts_first else 0
            decoding.sort(key=lambda sequence: sequence.turn)
            del decoding[max(0, allowance - least) :]
            room = min(room, allowance - len(decoding))
        self._turn += 1
        work = []
        for sequence in list(self.running):
            if sequence.kv is None:  # gave way to an older one a moment ago
                continue
            decode = sequence.pending == 1
            if decode and sequence not in decoding:
                continue
            count = 1 if decode else min(sequence.pending, room)
            if count and self._secure(sequence):
                sequence.turn = self._turn
                work.append(Work(sequence, count))
                room -= 0 if decode else count
        while self.waiting and len(self.running) < self._max_batch and room > 0:
            sequence = self.waiting[0]
            if not self._admit(sequence):
                break
            count = min(sequence.pending, room)
            room -= count
            sequence.turn = self._turn
            work.append(Work(sequence, count))
        return work

    def finish(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Takes a sequence out, wherever it is; with `keep` its slab may serve a later
        request."""
        if sequence.kv is None:
            self.waiting.remove(sequence)
            return
        self.running.remove(sequence)
        if keep:
            self._kv.keep(sequence.kv, sequence.tokens[: sequence.computed])
        else:
            self._kv.drop(sequence.kv)
        sequence.kv = None

    def slab(self, tokens: int) -> int:
        """An empty slab for `tokens` (at most the budget); running requests give way."""
        while (handle := self._kv.open(tokens)) is None:
            self._preempt(self.running[-1])
        return handle

    def _secure(self, sequence: Sequence) -> bool:
        """Room for all tokens of `sequence`; False when it had to give way itself."""
        assert sequence.kv is not None
        while not self._kv.grow(sequence.kv, len(sequence.tokens)):
            victim = self.running[-1]
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        assert sequence.kv is not None
        self._kv.drop(sequence.kv)
        sequence.kv, sequence.computed = None, 0
        self.running.remove(sequence)
        self.waiting.appendleft(sequence)

    def _admit(self, sequence: Sequence) -> bool:
        """Gives the first waiting sequence a slab; False when it must wait."""
        tokens = sequence.tokens
        live = []
        for other in self.running:
            assert other.kv is not None
            ready = other.tokens[: other.computed]
            live.append((other.kv, ready))
            # A twin still in its prefill will soon hold what this one needs.
            common = common_prefix(tokens[:-1], other.tokens[: other.prompt_length])
            if other.computed < common and common >= MIN_PREFIX:
                return False
        attached = self._kv.attach(tokens, live)
        if attached is None:
            return False
        sequence.kv, sequence.computed = attached
        if not sequence.completion_length:
            sequence.cached = sequence.computed
        self.waiting.popleft()
        self.running.append(sequence)
        return True
