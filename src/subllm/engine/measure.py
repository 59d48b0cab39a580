"""How fast an engine is: the same few workloads for every model and every backend.

Prompts are random tokens, different in every run, so that no prefix is ever reused; what
the tokens are does not matter for the time that a step takes.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from subllm.engine.request import Engine, Request, SamplingParams, TokenEvent
from subllm.errors import EngineError, UsageError

DECODE_PROMPT = 64
FIRST_PROMPT = 16
SEQUENCES = 8


@dataclass(frozen=True)
class Series:
    """Repeated measurements of one quantity, in the order in which they were made."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Half the distance of best and worst, as a share of the median."""
        return (max(self.samples) - min(self.samples)) / 2 / self.median


@dataclass(frozen=True)
class Round:
    """One pass over all workloads.

    prefill      prompt tokens per second of one long prompt, its first token included
    decode       tokens per second of one sequence, after a prompt of DECODE_PROMPT
    batch_decode tokens per second of SEQUENCES sequences together
    first_token  seconds from a prompt of FIRST_PROMPT tokens to the token that follows
    """

    prefill: float
    decode: float
    batch_decode: float
    first_token: float


class Probe:
    """Measures one engine, which must be idle and have room for SEQUENCES requests.

    Raises UsageError for fewer than two tokens to decode, ContextLengthError and
    EngineBusyError as the engine does.
    """

    def __init__(
        self,
        engine: Engine,
        vocab_size: int,
        *,
        prompt_tokens: int = 512,
        tokens: int = 128,
        seed: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """prompt_tokens  of the prompt whose prefill is measured
        tokens         decoded by each sequence
        """
        if tokens < 2:
            raise UsageError("decoding is measured from the first token on; ask for at least 2")
        self._engine = engine
        self._vocabulary = range(vocab_size)
        self._prompt_tokens = prompt_tokens
        self._tokens = tokens
        self._random = random.Random(seed)  # noqa: S311 (prompts, not secrets)
        self._clock = clock
        self._ids = 0

    def warm_up(self) -> None:
        """Touches weights and memory as every workload will, unmeasured."""
        self.prefill()
        self._run(SEQUENCES, DECODE_PROMPT, 2)

    def round(self) -> Round:
        return Round(self.prefill(), self.decode(), self.batch_decode(), self.first_token())

    def prefill(self) -> float:
        return self._prompt_tokens / self._first(self._prompt_tokens)

    def first_token(self) -> float:
        return self._first(FIRST_PROMPT)

    def decode(self) -> float:
        return self._run(1, DECODE_PROMPT, self._tokens)

    def batch_decode(self) -> float:
        return self._run(SEQUENCES, FIRST_PROMPT, self._tokens)

    def _first(self, length: int) -> float:
        """Seconds from a prompt of `length` tokens to the token that follows it."""
        start = self._clock()
        self._add(length, 1)
        while not self._step():
            pass
        return self._clock() - start

    def _run(self, sequences: int, length: int, tokens: int) -> float:
        """Tokens per second, from the first token of all on until one of them ends."""
        waiting = {self._add(length, tokens) for _ in range(sequences)}
        while waiting:
            waiting -= {event.request_id for event in self._step()}
        start = self._clock()
        count, ended = 0, False
        while not ended:
            for event in self._step():
                count += len(event.tokens)
                ended = ended or event.finish_reason is not None
        rate = count / (self._clock() - start)
        while self._engine.has_work():
            self._step()
        return rate

    def _step(self) -> list[TokenEvent]:
        if not self._engine.has_work():
            raise EngineError("a measured request ended early; run it again alone")
        events = self._engine.step()
        for event in events:
            if event.error is not None:
                raise event.error
            if event.cached_tokens:
                raise EngineError("a measured prompt was served from memory; measure again")
        return [event for event in events if event.tokens]

    def _add(self, length: int, tokens: int) -> str:
        self._ids += 1
        prompt = tuple(self._random.choices(self._vocabulary, k=length))
        params = SamplingParams(max_tokens=tokens, ignore_eos=True)
        request = Request(f"measured-{self._ids}", prompt, params)
        self._engine.add(request)
        return request.id


def longest_sequence(prompt_tokens: int, tokens: int) -> int:
    """Context, in tokens, that a `Probe` of these workloads needs."""
    return max(prompt_tokens + 1, DECODE_PROMPT + tokens)


def kv_tokens(prompt_tokens: int, tokens: int) -> int:
    """KV memory, in tokens, with which no sequence has to give way to another."""
    return longest_sequence(prompt_tokens, tokens) + SEQUENCES * (DECODE_PROMPT + tokens + 64)
