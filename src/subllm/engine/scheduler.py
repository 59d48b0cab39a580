"""Which tokens run in the next step: continuous batching with prefill in chunks.

Every decoding request gets one token a step; what is left of the step goes to prompts and
to what is scored, in pieces, so that a long one never stalls the others. Of these, interactive
requests go first, newest first, then the others in order of arrival; every few steps the oldest
has its turn, and who was overtaken a few times while waiting is overtaken no more. A request
that begins like one whose prompt still runs waits for it and starts from what it has computed;
others pass it meanwhile. When KV memory runs out, the youngest request gives its memory up and
waits again, first in the queue; its tokens are kept and computed anew later. Where several
engines share a room, nobody begins before one of another engine that waits for memory longer.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from subllm.engine.kv_cache import MIN_PREFIX, KvCache, common_prefix
from subllm.engine.reading import LEAST
from subllm.engine.scoring import ScoringSequence
from subllm.engine.sequence import Sequence
from subllm.errors import EngineBusyError

OLDEST_EVERY = 4
"""One step in so many reads in order of arrival."""

MOST_OVERTAKEN = 8
"""So many may begin before one that came earlier and could begin as well."""


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
        self.running: list[Sequence] = []  # in the order in which they began
        self._turn = 0
        self._arrived = 0

    def __len__(self) -> int:
        return len(self.waiting) + len(self.running)

    @property
    def decodes(self) -> bool:
        """Whether a running request has its prompt behind it."""
        return any(sequence.pending == 1 for sequence in self.running)

    def add(self, sequence: Sequence) -> None:
        self._arrived += 1
        sequence.number = self._arrived
        self.waiting.append(sequence)

    def plan(
        self,
        allowance: int | None = None,
        reading: int | None = None,
        score_weight: float = 1.0,
    ) -> list[Work]:
        """The work of one step, `allowance` tokens at most; empty only when there is none, or
        none of it has memory.

        Where the allowance is not enough for all, prompts have a quarter of it (one token at
        least), and those decode whose last turn is longest ago.

        reading       tokens of prompts in the step, in place of the scheduler's own measure,
                      which it does not exceed
        score_weight  how many of them a token that is scored counts for
        """
        self._turn += 1
        work = self._plan(allowance, reading, score_weight, prompts_first=True)
        if not work and allowance is not None:  # no prompt could use its part
            work = self._plan(allowance, reading, score_weight, prompts_first=False)
        return work

    def _plan(
        self,
        allowance: int | None,
        reading: int | None,
        score_weight: float,
        *,
        prompts_first: bool,
    ) -> list[Work]:
        decoding = [sequence for sequence in self.running if sequence.pending == 1]
        room = self._prefill_chunk
        if reading is not None:
            room = max(1, min(room, reading))
        elif decoding:
            room = max(1, room // 4)
        if allowance is not None:
            prompts = len(decoding) < len(self.running) or (
                self.waiting and len(self.running) < self._max_batch
            )
            least = max(1, allowance // 4) if prompts and prompts_first else 0
            decoding.sort(key=lambda sequence: sequence.turn)
            del decoding[max(0, allowance - least) :]
            room = min(room, allowance - len(decoding))
        reads = self._to_read()
        work = []
        for sequence in list(self.running):
            # Who has no slab gave way to an older one a moment ago.
            if sequence in decoding and sequence.kv is not None and self._secure(sequence):
                work.append(Work(sequence, 1))
        left = float(room)

        def read(sequence: Sequence) -> None:
            nonlocal left
            count, weight = int(left), 1.0
            if isinstance(sequence, ScoringSequence):
                weight = score_weight
                count = max(int(left / weight), min(count, LEAST))  # it is a pass of its own
            count = min(sequence.pending, count)
            left -= count * weight
            work.append(Work(sequence, count))

        for sequence in reads:
            if left >= 1 and sequence.kv is not None and self._secure(sequence):
                read(sequence)
        for sequence in self._to_begin():
            if left < 1 or len(self.running) >= self._max_batch:
                break
            if self._follows(sequence):
                continue
            if not self._admit(sequence):
                break
            read(sequence)
        work = [item for item in work if item.sequence.kv is not None]
        for item in work:
            item.sequence.turn = self._turn
        return work

    def finish(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Takes a sequence out, wherever it is; with `keep` its slab may serve a later
        request."""
        if sequence.kv is None:
            self.waiting.remove(sequence)
            if not self.waiting:
                self._kv.waive()
            return
        self.running.remove(sequence)
        if keep:
            self._kv.keep(sequence.kv, sequence.tokens[: sequence.computed])
        else:
            self._kv.drop(sequence.kv)
        sequence.kv = None

    def slab(self, tokens: int) -> int:
        """An empty slab for `tokens` (at most the budget); running requests give way. Raises
        EngineBusyError where those of other engines hold the memory."""
        while (handle := self._kv.open(tokens)) is None:
            if not self.running:
                raise EngineBusyError("other models hold the KV memory; try again in a moment")
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
        sequence.overtaken = MOST_OVERTAKEN
        self.running.remove(sequence)
        self.waiting.appendleft(sequence)

    def _to_read(self) -> list[Sequence]:
        """Those whose prompts run, who is next first."""
        reads = sorted((s for s in self.running if s.pending > 1), key=_arrival)
        return reads if self._turn % OLDEST_EVERY == 0 else _by_urgency(reads)

    def _to_begin(self) -> list[Sequence]:
        """Those that wait, who is next first."""
        arrived = sorted(self.waiting, key=_arrival)
        due = [sequence for sequence in arrived if sequence.overtaken >= MOST_OVERTAKEN]
        return due + _by_urgency([s for s in arrived if s.overtaken < MOST_OVERTAKEN])

    def _follows(self, sequence: Sequence) -> bool:
        """Whether one whose prompt still runs will soon hold more of what this one needs than
        any holds now."""
        if isinstance(sequence, ScoringSequence):  # which takes nothing over
            return False
        tokens = sequence.tokens[:-1]
        promised = held = 0
        for other in self.running:
            common = common_prefix(tokens, other.tokens[: other.prompt_length])
            promised = max(promised, common)
            held = max(held, min(common, other.computed))
        return promised > held and promised >= MIN_PREFIX

    def _admit(self, sequence: Sequence) -> bool:
        """Gives a waiting sequence a slab; False when it must wait."""
        if not self._kv.may_begin():
            return False
        tokens = sequence.tokens
        if isinstance(sequence, ScoringSequence):
            slab = self._kv.open(len(tokens))
            attached = None if slab is None else (slab, 0)
        else:
            live = []
            for other in self.running:
                assert other.kv is not None
                live.append((other.kv, other.tokens[: other.computed]))
            attached = self._kv.attach(tokens, live)
        if attached is None:
            self._kv.claim()
            return False
        self._kv.waive()
        sequence.kv, sequence.computed = attached
        if not sequence.completion_length:
            sequence.cached = sequence.computed
        self.waiting.remove(sequence)
        for other in self.waiting:
            other.overtaken += other.number < sequence.number and not self._follows(other)
        self.running.append(sequence)
        return True


def _arrival(sequence: Sequence) -> int:
    return sequence.number


def _by_urgency(arrived: list[Sequence]) -> list[Sequence]:
    urgent = [sequence for sequence in reversed(arrived) if sequence.request.interactive]
    return urgent + [sequence for sequence in arrived if not sequence.request.interactive]
