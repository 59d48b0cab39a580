"""Speculation of one engine: who guesses for which sequence, and what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from collections.abc import Sequence as Listed
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate
from operator import mul
from types import MappingProxyType

from subllm.engine.backend import Backend
from subllm.engine.draft import Draft
from subllm.engine.kv_cache import KvCache
from subllm.engine.request import SourceCounts, SpeculationStats
from subllm.engine.sequence import Sequence
from subllm.engine.speculative.drafting import DraftProposer, DraftRecord
from subllm.engine.speculative.ngrams import NgramProposer
from subllm.engine.speculative.pace import MOST_GUESSES, PROBE_GUESSES, Pace, Round
from subllm.engine.speculative.proposer import Guess, Proposer
from subllm.errors import EngineError

log = logging.getLogger("subllm.engine")


@dataclass
class _Asked:
    """What a proposer guessed for the step at hand; `count` of the guesses run in it."""

    proposer: Proposer
    guesses: list[Guess]
    count: int


class Speculator:
    """Called by the engine around its steps. `proposers` and `pace` are the engine's own unless
    given."""

    def __init__(
        self,
        backend: Backend,
        kv: KvCache,
        *,
        proposers: Listed[Proposer] | None = None,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._backend = backend
        self._kv = kv
        self._clock = clock
        self._proposers: list[Proposer] = list(
            [NgramProposer()] if proposers is None else proposers
        )
        self._pace = pace or Pace()
        self._draft: DraftProposer | None = None
        self._records: dict[tuple[str, str], DraftRecord] = {}
        self._begun: Round | None = None
        self._asked: dict[str, _Asked] = {}
        self._counts: dict[str, SourceCounts] = {}

    @property
    def stats(self) -> SpeculationStats:
        draft = self._draft
        return SpeculationStats(
            None if draft is None else draft.draft.name, MappingProxyType(dict(self._counts))
        )

    @property
    def resident_bytes(self) -> int:
        return 0 if self._draft is None else self._draft.resident_bytes

    def set_draft(self, draft: Draft | None) -> None:
        """Puts a draft model, which must have been checked, in place of the one before."""
        if self._draft is not None:
            old, self._draft = self._draft, None
            self._proposers.remove(old)
            self._kv.lend(0, old.give_back)
            with suppress(EngineError):  # it may be what failed
                old.close()
        if draft is not None:
            record = self._records.setdefault((draft.name, draft.digest), DraftRecord())
            self._draft = DraftProposer(
                draft,
                self._backend.vocab_size,
                self._lend,
                step_seconds=self._draft_seconds,
                record=record,
                clock=self._clock,
            )
            self._proposers.append(self._draft)

    def guess(self, sequences: Listed[Sequence], allowance: int | None) -> None:
        """Puts guesses behind the sequences of a step that only decodes, each with its last
        token; at most `allowance` tokens are in the step then."""
        self._begun = None
        self._asked.clear()
        if not self._backend.exact_widths:
            return
        open_to = [s for s in sequences if s.request.speculation != "off" and s.free]
        begun = self._pace.round(len(sequences)) if open_to else None
        if begun is None:
            return
        self._begun = begun
        most = MOST_GUESSES + 1 if allowance is None else min(MOST_GUESSES + 1, allowance)
        for sequence in open_to:
            limit = min(sequence.room, most - begun.tokens)
            if limit > 0:
                self._guess(begun, sequence, limit)

    def decoded(self, sequences: int, tokens: int, seconds: float, emitted: int) -> None:
        """That step is over, with `tokens` in it, `emitted` out of it (ends of texts count),
        after so many seconds."""
        self._pace.decoded(sequences, tokens, seconds, emitted)
        if self._begun is not None and self._asked:
            self._pace.speculated(self._begun, emitted)

    def learn(self, sequence: Sequence, tokens: Listed[int], accepted: int) -> None:
        """These tokens of a sequence came out of the step, the first `accepted` of them as
        guessed."""
        asked = self._asked.get(sequence.request.id)
        if asked is None:
            return
        asked.proposer.learn(sequence, asked.guesses, tokens)
        if asked.count:
            name = asked.proposer.name
            old = self._counts.get(name, SourceCounts())
            self._counts[name] = SourceCounts(
                old.rounds + 1, old.drafted + asked.count, old.accepted + accepted
            )

    def end(self, sequence: Sequence) -> None:
        """A sequence is over."""
        if not self._backend.exact_widths:
            return
        self._pace.ended(sequence)
        for proposer in self._of(sequence):
            proposer.end(sequence)

    def close(self) -> None:
        for proposer in self._proposers:
            proposer.close()
        self._proposers, self._draft = [], None

    def _of(self, sequence: Sequence) -> list[Proposer]:
        wanted = sequence.request.speculation
        return [p for p in self._proposers if wanted in ("auto", p.name)]

    def _guess(self, begun: Round, sequence: Sequence, limit: int) -> None:
        judged = []
        for proposer in self._of(sequence):
            outlook = proposer.outlook(sequence, limit)
            verdict = self._pace.judge(begun, proposer.name, outlook, sequence)
            if verdict.gain:
                judged.append((not verdict.probe, verdict.gain, outlook, proposer))
        if not judged:
            return
        pays, _, outlook, proposer = max(judged, key=lambda entry: entry[:2])
        self._pace.tried(proposer.name)
        started = self._clock()

        def go_on(guesses: list[Guess]) -> bool:
            if not pays:
                return len(guesses) < PROBE_GUESSES
            spent = begun.spent + self._clock() - started
            return self._pace.more(replace(begun, spent=spent), guesses, outlook)

        try:
            guesses = proposer.propose(sequence, limit, go_on)
        except EngineError as error:  # requests go on without it
            log.warning("%s stops drafting: %s", self.stats.draft, error)
            self.set_draft(None)
            return
        spent = self._clock() - started
        begun.spent += spent - (min(spent, outlook.backlog_seconds) if pays else 0.0)
        count = self._pace.cut(begun, guesses) if pays else min(len(guesses), PROBE_GUESSES)
        assert sequence.kv is not None
        if count and not self._kv.grow(sequence.kv, len(sequence.tokens) + count):
            count = 0
        sequence.guess([guess.token for guess in guesses[:count]])
        begun.tokens += count
        chances = accumulate((guess.chance for guess in guesses[:count]), mul)
        begun.expected += sum(chances)
        self._asked[sequence.request.id] = _Asked(proposer, guesses, count)

    def _draft_seconds(self) -> float:
        """What a step of the draft may cost: it reads its weights once, as the target does."""
        assert self._draft is not None
        plain = self._pace.costs.seconds(1) or 0.0
        return plain * self._draft.resident_bytes / max(1, self._backend.resident_bytes)

    def _lend(self, size: int) -> bool:
        assert self._draft is not None
        return self._kv.lend(size, self._draft.give_back)
