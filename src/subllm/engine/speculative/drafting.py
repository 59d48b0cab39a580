"""Guesses by a draft model: a smaller model with the same token ids, decoded greedily.

One draft model serves all sequences of an engine. It has its own KV memory, a window on the end
of a sequence: a thousand tokens tell it nearly as much as all would, and bound what catching up
and keeping them costs. What it has computed is kept when a sequence ends, as the next request
often has nearly the same prompt.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as Listed
from dataclasses import dataclass, replace
from math import exp

import numpy as np

from subllm.engine.backend import KV_BLOCK, Backend, Choice, Chunk, Draw, TokenArray
from subllm.engine.draft import Draft
from subllm.engine.kv_cache import MIN_PREFIX, blocks, common_prefix
from subllm.engine.params import SamplingParams
from subllm.engine.sequence import Sequence
from subllm.engine.speculative.acceptance import Acceptance
from subllm.engine.speculative.costs import StepCosts
from subllm.engine.speculative.proposer import GoOn, Guess, Outlook

WINDOW = 1024
"""Tokens that the draft model sees at most; after a move of the window, half of it at least."""
SLABS = 2
PIECE = 64
"""Tokens of the window that it catches up with in one step, so that no step takes long."""
MOST = 16
"""Guesses of a round, and a few tokens more: free at the end of a window that is begun."""
_NEAR = 8  # tokens: more to catch up with than rounds leave, and to be paid once
PREFILL_SLOPE = 0.06
"""Cost of another token of a draft's step before it was measured, in steps of one token."""

# Kinds of guesses, by the probability that the draft gives the token.
_EDGES = (0.2, 0.4, 0.6, 0.75, 0.85, 0.93, 0.98, 0.995)
_ANY = 9  # whatever the probability
_BELIEFS = (0.1, 0.3, 0.5, 0.65, 0.75, 0.85, 0.92, 0.96, 0.98, 0.8)


@dataclass
class Slab:
    """KV memory with the tokens whose keys and values it holds: those of `owner`, the request
    that it follows, from `origin` on, as far as they are still the same."""

    kv: int
    tokens: TokenArray
    length: int = 0
    held: int = 0  # blocks, of the backend's memory
    owner: str = ""
    origin: int = 0

    @property
    def known(self) -> TokenArray:
        return self.tokens[: self.length]


class DraftRecord:
    """What is known of a draft model: how often its guesses come out, and its steps' times.
    Outlives its attachments, so that one that does not pay is not tried anew in each."""

    def __init__(self) -> None:
        self.acceptance = Acceptance(_BELIEFS * 2)
        self.costs = StepCosts(PREFILL_SLOPE)


class DraftProposer:
    """Implements `Proposer` on a backend of its own, which it closes.

    Where tokens are sampled, the draft samples with the parameters and the random number of the
    target: where the two agree about the distribution, they draw the same token.
    """

    name = "draft"

    def __init__(
        self,
        draft: Draft,
        vocab_size: int,
        lend: Callable[[int], bool],
        *,
        step_seconds: Callable[[], float],
        record: DraftRecord | None = None,
        window: int = WINDOW,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """vocab_size    of the target: tokens beyond it are never proposed
        lend          asks for so many bytes of the target's KV budget, in all
        step_seconds  what a step over one token may cost, until one was timed
        record        of this draft from before
        """
        self.draft = draft
        self._backend: Backend = draft.backend
        self._target_vocab = vocab_size
        self._vocab = draft.backend.vocab_size
        self._lend = lend
        self._step_seconds = step_seconds
        self._window = window
        self._clock = clock
        self._slabs: list[Slab] = []  # used longest ago first
        record = record or DraftRecord()
        self._costs, self._acceptance = record.costs, record.acceptance

    @property
    def resident_bytes(self) -> int:
        return self._backend.resident_bytes

    def outlook(self, sequence: Sequence, limit: int) -> Outlook:
        slab = self._slab(sequence)
        if slab is None or limit <= 0:
            return Outlook(())
        pending = len(sequence.tokens) - slab.origin - slab.length
        one = self._seconds(1)
        whole, rest = divmod(pending, PIECE)
        behind = whole * self._seconds(PIECE) + (self._seconds(rest) if rest else 0.0) - one
        backlog = pending > _NEAR
        return Outlook(
            (self._acceptance.rate(_any(sequence)),) * limit,
            start_seconds=0.0 if backlog else behind,
            step_seconds=one,
            backlog_seconds=behind if backlog else 0.0,
        )

    def propose(self, sequence: Sequence, limit: int, go_on: GoOn) -> list[Guess]:
        """Only catches up, by a piece, where much is missing."""
        slab = self._slab(sequence)
        guesses: list[Guess] = []
        if slab is None:
            return guesses
        self._slabs.remove(slab)
        self._slabs.append(slab)
        ids = sequence.tokens[slab.origin + slab.length :]
        if len(ids) > PIECE:
            self._run(slab, ids[:PIECE], ())
            return guesses
        params = self._params(sequence.request.params)
        first_kind = _any(sequence) - _ANY
        known = len(sequence.tokens)
        history = np.empty(known + limit, dtype=np.int32)
        history[:known] = sequence.tokens
        while (count := len(guesses)) < limit:
            uniform = sequence.uniform(count)
            draw = Draw(
                params, history[: known + count], sequence.prompt_length, uniform, estimate=True
            )
            choice = self._run(slab, ids, (draw,))
            if choice is None or choice.token >= self._target_vocab:
                break
            assert choice.logprob is not None
            kind = first_kind + sum(exp(choice.logprob.logprob) >= edge for edge in _EDGES)
            guesses.append(Guess(choice.token, self._acceptance.rate(kind), kind))
            if not go_on(guesses):
                break
            history[known + count] = choice.token
            ids = history[known + count : known + count + 1]
        return guesses

    def learn(self, sequence: Sequence, guesses: Listed[Guess], tokens: Listed[int]) -> None:
        for guess, token in zip(guesses, tokens, strict=False):
            self._acceptance.learn(guess.kind, guess.token == token)
            self._acceptance.learn(_any(sequence), guess.token == token)
            if guess.token != token:
                break

    def end(self, sequence: Sequence) -> None:
        """What was computed may serve the next one."""
        for slab in self._slabs:
            if slab.owner == sequence.request.id:
                slab.owner = ""

    def give_back(self) -> None:
        """Frees all KV memory, at once."""
        for slab in self._slabs:
            self._backend.kv_close(slab.kv)
        self._slabs.clear()

    def close(self) -> None:
        self._slabs.clear()
        self._backend.close()

    def _params(self, params: SamplingParams) -> SamplingParams:
        bias = tuple(entry for entry in params.logit_bias if entry[0] < self._vocab)
        return replace(params, logprobs=None, logit_bias=bias)

    def _seconds(self, tokens: int) -> float:
        known = self._costs.seconds(tokens)
        return self._step_seconds() * (1 + PREFILL_SLOPE * (tokens - 1)) if known is None else known

    def _run(self, slab: Slab, ids: TokenArray, draws: tuple[Draw, ...]) -> Choice | None:
        """One step; None where nothing was drawn, for want of memory or of finite logits."""
        stop = slab.length + len(ids)
        held = max(slab.held, blocks(stop))
        size = KV_BLOCK * self._backend.kv_bytes_per_token
        others = sum(other.held for other in self._slabs if other is not slab)
        if not self._lend((others + held) * size):
            return None
        slab.held = held
        before = self._clock()
        (drawn,) = self._backend.step([Chunk(slab.kv, slab.length, ids, draws)])
        self._costs.observe(len(ids), self._clock() - before)
        slab.tokens[slab.length : stop] = ids
        slab.length = stop
        return next((choice for choice in drawn if isinstance(choice, Choice)), None)

    def _slab(self, sequence: Sequence) -> Slab | None:
        """The slab that follows the sequence, cut to what the two have in common; None where
        the draft does not know all tokens."""
        tokens, owner = sequence.tokens, sequence.request.id
        slab = next((slab for slab in self._slabs if slab.owner == owner), None)
        if slab is None or len(tokens) - slab.origin + MOST > self._window:
            slab = self._begin(tokens, owner, slab)
        view = tokens[slab.origin :]
        if self._vocab < self._target_vocab and view.max() >= self._vocab:
            return None
        slab.length = min(common_prefix(slab.known, view), len(view) - 1)
        return slab

    def _begin(self, tokens: TokenArray, owner: str, own: Slab | None) -> Slab:
        """A slab for the end of the tokens: one that has begun alike, where there is one."""
        origin = self._origin(len(tokens))
        view = tokens[origin:]
        slab = own or self._like(view)
        slab.owner, slab.origin = owner, origin
        return slab

    def _like(self, view: TokenArray) -> Slab:
        """The slab of no running sequence that has most of its begin in common with `view`; a
        new one where there may be more, begun like that of another sequence."""
        common = {id(slab): common_prefix(slab.known, view) for slab in self._slabs}
        ranked = sorted(self._slabs, key=lambda slab: common[id(slab)])
        free = [slab for slab in ranked if not slab.owner]
        if len(self._slabs) >= SLABS:
            return free[-1] if free else self._slabs[0]
        if free and common[id(free[-1])] >= MIN_PREFIX:
            return free[-1]
        new = Slab(-1, np.empty(self._window, dtype=np.int32))
        source = ranked[-1] if ranked else None
        if source is not None and common[id(source)] >= MIN_PREFIX:
            new.length = common[id(source)]
            new.tokens[: new.length] = view[: new.length]
            new.kv, new.held = self._backend.kv_fork(source.kv, new.length), blocks(new.length)
        else:
            new.kv = self._backend.kv_open()
        self._slabs.append(new)
        return new

    def _origin(self, count: int) -> int:
        """Where the window on so many tokens begins: the same for prompts that begin alike and
        are about as long, so that what was computed of one serves the next."""
        if count + MOST <= self._window // 2:
            return 0
        step = self._window // 4
        return max(0, (count - self._window // 2) // step * step)


def _any(sequence: Sequence) -> int:
    """The kind of all guesses together, where tokens are sampled or not."""
    sampled = sequence.request.params.temperature > 0.0
    return _ANY + (len(_BELIEFS) if sampled else 0)
