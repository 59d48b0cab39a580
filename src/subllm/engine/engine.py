"""The engine: requests in, token events out, on one backend and one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as Listed

import numpy as np

from subllm.engine.backend import KV_BLOCK, Backend, Chunk
from subllm.engine.begun import Begun
from subllm.engine.draft import Draft
from subllm.engine.engine_model import EngineModel
from subllm.engine.kv_cache import KvCache, blocks
from subllm.engine.kv_room import KvRoom
from subllm.engine.limits import EngineLimits
from subllm.engine.output import CompletionText
from subllm.engine.reading import ReadingSpeed
from subllm.engine.request import (
    FinishReason,
    Request,
    SamplingParams,
    SpeculationStats,
    TokenEvent,
    TokenLogprob,
)
from subllm.engine.sampler import check_params
from subllm.engine.scheduler import Scheduler, Work
from subllm.engine.scoring import ScoringSequence
from subllm.engine.sequence import Sequence
from subllm.engine.speculative.guessing import Guessing
from subllm.engine.speculative.speculator import Speculator
from subllm.errors import (
    ContextLengthError,
    EngineBusyError,
    EngineError,
    LogitsError,
    UsageError,
)


class LocalEngine:
    """Implements `engine.request.Engine` on a backend in this process."""

    def __init__(
        self,
        model: EngineModel,
        backend: Backend,
        *,
        limits: EngineLimits = EngineLimits(),
        guessing: Guessing = Guessing(),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """clock: seconds, by which steps are measured. Raises DraftError as `set_draft`."""
        self._name = model.name
        self._backend = backend
        self._tokenizer = model.tokenizer
        self._context_length = model.context_length
        self._capacity = limits.max_batch + limits.queue_limit
        self._prefill_chunk = limits.prefill_chunk
        self._stop_ids = model.stop_ids()
        room = backend.kv_room or self._kv_room(max(model.context_length, limits.kv_tokens))
        self._kv = KvCache(backend, room, limits.keep_prefixes)
        if limits.kv_bytes is not None:
            self.kv_budget = limits.kv_bytes
        self._scheduler = Scheduler(
            self._kv, max_batch=limits.max_batch, prefill_chunk=limits.prefill_chunk
        )
        self._clock = clock
        self._speed = ReadingSpeed(backend.resident_bytes)
        self._speculator = Speculator(
            backend, self._kv, proposers=guessing.proposers, pace=guessing.pace, clock=clock
        )
        self.set_draft(guessing.draft)
        self._sequences: dict[str, Sequence] = {}
        self._events: list[TokenEvent] = []  # of requests that ended between two steps

    @property
    def name(self) -> str:
        return self._name

    @property
    def context_length(self) -> int:
        return self._context_length

    @property
    def resident_bytes(self) -> int:
        return self._backend.resident_bytes + self._speculator.resident_bytes

    @property
    def held_kv_tokens(self) -> int:
        """KV room taken by running requests, in tokens."""
        return self._kv.held_tokens

    @property
    def kv_budget(self) -> int:
        """KV memory, in bytes, of all requests together, shared blocks counted once. A value
        too small for one context counts as that: any request that is accepted can run."""
        return self._kv.budget

    @kv_budget.setter
    def kv_budget(self, value: int) -> None:
        room = value if self._backend.kv_room is None else min(value, self._backend.kv_room)
        self._kv.budget = max(room, self._kv_room(self._context_length))

    @property
    def on_card(self) -> bool:
        return self._backend.kv_room is not None

    def share_kv(self, room: KvRoom) -> None:
        if not self.on_card:
            self._kv.join(room)

    @property
    def speculates(self) -> bool:
        return self._backend.exact_widths

    @property
    def speculation(self) -> SpeculationStats:
        return self._speculator.stats

    def set_draft(self, draft: Draft | None) -> None:
        """Its KV memory is taken from `kv_budget` where requests leave room. Raises DraftError
        as the protocol says."""
        if draft is not None:
            draft.check(self._name, self._tokenizer)
        self._speculator.set_draft(draft)

    def add(self, request: Request) -> None:
        """Raises ContextLengthError, EngineBusyError, UsageError for a parameter out of
        range, EngineError for a token outside the vocabulary or an id in use."""
        params = request.params
        check_params(params, self._backend.vocab_size)
        self._check_tokens(request.prompt)
        for others in filter(None, (request.prediction, request.begun)):
            self._check_tokens(others)
        if request.id in self._sequences:
            raise EngineError(f"request id {request.id!r} is in use; choose another")
        scores = request.score is not None
        if request.score is not None and not 0 <= request.score <= self._backend.vocab_size:
            raise UsageError(f"{request.score} alternatives are out of range; ask for fewer")
        length = len(request.prompt) + len(request.begun)
        wanted = length + (0 if scores else params.max_tokens)
        if wanted > self._context_length:
            more = "" if scores else f" and max_tokens is {params.max_tokens}"
            raise ContextLengthError(
                f"the prompt has {length} tokens{more}, but {self._name} has a "
                f"context of {self._context_length}; shorten one of them"
            )
        if len(self._scheduler) >= self._capacity:
            raise EngineBusyError(
                f"{self._name} has {len(self._scheduler)} requests running and waiting; "
                "try again in a moment"
            )
        sequence = self._sequence(request)
        if not sequence.pending or not (scores or params.max_tokens):
            self._events.append(sequence.end("length"))
            return
        self._sequences[request.id] = sequence
        self._scheduler.add(sequence)

    def step(self, allowance: int | None = None, seconds: float | None = None) -> list[TokenEvent]:
        """One forward pass at most, and one for each request that is scored; see the
        protocol."""
        events, self._events = self._events, []
        reading = None
        if seconds is not None:
            reading = self._speed.tokens(seconds, decoding=self._scheduler.decodes)
        planned = self._scheduler.plan(allowance, reading, self._speed.score_weight)
        work = []
        for item in planned:
            if isinstance(item.sequence, ScoringSequence):
                events.append(self._score(item.sequence, item.count))
            else:
                work.append(item)
        if not work:
            return events
        running = [item.sequence for item in work if item.decodes]
        plain = len(running) == len(planned) == len(self._scheduler.running)
        if plain:
            self._speculator.guess(running, allowance)
        chunks = [_chunk(item) for item in work]
        started = self._clock()
        drawn = self._backend.step(chunks)
        took = self._clock() - started
        emitted = 0
        for item, chunk, choices in zip(work, chunks, drawn, strict=True):
            sequence = item.sequence
            if not choices:
                sequence.computed += len(chunk.tokens)
                continue
            accepted = sequence.accepted
            found = sequence.take(choices)
            tokens = [token for event in found for token in event.tokens]
            self._speculator.learn(sequence, tokens, sequence.accepted - accepted)
            emitted += len(found)
            events += found
            if found[-1].finish_reason is not None:
                # Keys and values that gave no finite logits are of no use to others.
                self._finish(sequence, keep=found[-1].error is None)
        count = sum(len(chunk.tokens) for chunk in chunks)
        if plain:
            self._speculator.decoded(len(running), count, took, emitted)
        if len(running) == len(work):
            self._speed.decoded(took)
        else:
            self._speed.read(count - len(running), took, decoding=bool(running))
        return events

    def abort(self, request_id: str, reason: FinishReason = "abort") -> None:
        sequence = self._sequences.get(request_id)
        if sequence is not None:
            self._finish(sequence)
            self._events.append(sequence.end(reason))

    def has_work(self) -> bool:
        return bool(self._events or self._sequences)

    def score(self, tokens: tuple[int, ...], top: int = 0) -> list[TokenLogprob | None]:
        self._check_tokens(tokens)
        return [None, *self.score_after(tokens[:1], (tokens[1:],), top)[0]]

    def score_after(
        self,
        context: tuple[int, ...],
        continuations: Listed[tuple[int, ...]],
        top: int = 0,
    ) -> list[list[TokenLogprob]]:
        """Runs the context once; running requests may have to start over for room."""
        self._check_tokens(context)
        for continuation in filter(None, continuations):
            self._check_tokens(continuation)
        longest = len(context) + max(map(len, continuations), default=0)
        if longest > self._context_length:
            raise ContextLengthError(
                f"{longest} tokens do not fit the context of {self._name}, "
                f"{self._context_length}; score them in pieces"
            )
        ids = np.array(context, dtype=np.int32)
        shared = len(ids) - 1  # the last one predicts what follows, and runs with it
        kv = self._scheduler.slab(longest)
        try:
            for start in range(0, shared, self._prefill_chunk):
                stop = min(start + self._prefill_chunk, shared)
                self._backend.step([Chunk(kv, start, ids[start:stop])])
            return [  # each is written over the one before
                self._score_at(kv, shared, (context[-1], *continuation), top)
                for continuation in continuations
            ]
        finally:
            self._kv.drop(kv)

    def close(self) -> None:
        """Frees everything; running requests are forgotten."""
        self._sequences.clear()
        self._events.clear()
        self._speculator.close()
        self._kv.clear()
        self._backend.close()

    def _finish(self, sequence: Sequence, *, keep: bool = True) -> None:
        self._scheduler.finish(sequence, keep=keep)
        self._speculator.end(sequence)
        del self._sequences[sequence.request.id]

    def _kv_room(self, tokens: int) -> int:
        """Bytes of the blocks that hold so many tokens."""
        return blocks(tokens) * KV_BLOCK * self._backend.kv_bytes_per_token

    def _sequence(self, request: Request) -> Sequence:
        if request.score is not None:
            return ScoringSequence(request, self._tokenizer)
        begun = Begun(self._tokenizer, request.begun) if request.begun else None
        known = begun.text if begun else ""
        text = CompletionText(self._tokenizer, request.params.stop, known, request.hole)
        left = self._context_length - len(request.prompt) - request.params.max_tokens
        room = min(left, len(known.encode()))  # where each byte is a token
        return Sequence(request, text, self._stops_of(request.params), begun, room)

    def _score(self, sequence: ScoringSequence, count: int) -> TokenEvent:
        """Runs the next tokens of a request that is scored."""
        assert sequence.kv is not None
        tokens, targets = sequence.pieces(count), sequence.targets(count)
        started = self._clock()
        try:
            entries = self._backend.score(
                sequence.kv, sequence.computed, tokens, targets, sequence.top
            )
        except LogitsError as error:
            self._finish(sequence, keep=False)
            return sequence.fail(error)
        self._speed.scored(count, self._clock() - started)
        event = sequence.scored(entries)
        if event.finish_reason is not None:
            self._finish(sequence)
        return event

    def _score_at(
        self, kv: int, start: int, tokens: tuple[int, ...], top: int
    ) -> list[TokenLogprob]:
        """Of every token but the first, which stands at `start`."""
        ids = np.array(tokens, dtype=np.int32)
        result: list[TokenLogprob] = []
        for first in range(0, len(ids) - 1, self._prefill_chunk):
            last = min(first + self._prefill_chunk, len(ids) - 1)
            targets = ids[first + 1 : last + 1]
            result += self._backend.score(kv, start + first, ids[first:last], targets, top)
        return result

    def _check_tokens(self, tokens: tuple[int, ...]) -> None:
        if not tokens:
            raise EngineError("the prompt has no tokens; send at least one")
        vocab = self._backend.vocab_size
        if min(tokens) < 0 or max(tokens) >= vocab:
            wrong = next(token for token in tokens if not 0 <= token < vocab)
            raise EngineError(
                f"token {wrong} is outside the vocabulary of {self._name} ({vocab} tokens)"
            )

    def _stops_of(self, params: SamplingParams) -> dict[int, str]:
        stops = {} if params.ignore_eos else dict(self._stop_ids)
        for token in params.stop_token_ids:
            stops[token] = self._tokenizer.decode([token])
        return stops


def _chunk(item: Work) -> Chunk:
    sequence = item.sequence
    assert sequence.kv is not None
    if not item.last:
        return Chunk(sequence.kv, sequence.computed, sequence.pieces(item.count))
    tokens = sequence.pieces(item.count + sequence.guesses)
    return Chunk(sequence.kv, sequence.computed, tokens, sequence.draws())
