"""What an engine asks of the code that owns weights, KV memory and arithmetic.

A backend is told everything by value: a step is a list of chunks (sequences at any
positions, prefill and decode mixed), and each chunk carries what drawing the tokens
after its last positions needs. It keeps no per-request state besides the KV slabs, so
one foreign call per step can implement it and nothing can leak when a request is
aborted. Logits never leave a backend; tokens and log-probabilities do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from subllm.engine.constraint import AllowedTokens
from subllm.engine.params import SamplingParams, TokenLogprob
from subllm.errors import LogitsError

TokenArray = npt.NDArray[np.int32]

KV_BLOCK = 64
"""KV memory grows in blocks of this many tokens; budgets count whole blocks."""


@dataclass(frozen=True, slots=True)
class Draw:
    """How to choose the token that follows a position.

    history        int32, every token up to that position, prompt first; draws of one chunk
                   are best given views of one buffer
    prompt_length  how many of them are the prompt (penalties tell the two apart)
    uniform        in [0, 1): the random number that decides a sampled token
    estimate       where the request asks for no log-probability: tell the token's, after
                   bias and penalties, as far as it is known without more work
    allowed        the tokens that may be chosen; None: all
    """

    params: SamplingParams
    history: TokenArray
    prompt_length: int
    uniform: float
    estimate: bool = False
    allowed: AllowedTokens | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive tokens of one sequence, at positions start, start + 1, ...

    Positions before `start` must have been computed in the same KV slab; positions
    from `start` on are overwritten. `draws` choose the tokens that follow the last
    len(draws) positions, in order; where there are none, no token is wanted (more to come).
    """

    kv: int
    start: int
    tokens: TokenArray
    draws: tuple[Draw, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """The token drawn after a position; `logprob` where one was asked for."""

    token: int
    logprob: TokenLogprob | None = None


Choices = tuple[Choice | LogitsError, ...]
"""What was drawn after a chunk, one for each of its draws."""


class Backend(Protocol):
    """One loaded model. Called from one thread. Raises BackendError only, but for `score`."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def resident_bytes(self) -> int:
        """Weights and KV memory held now, in bytes (weights shared with another
        model are counted in both)."""

    @property
    def kv_bytes_per_token(self) -> int: ...

    @property
    def kv_shares(self) -> bool:
        """Whether a fork and its source share full blocks until one writes to them."""

    @property
    def kv_room(self) -> int | None:
        """Bytes that keys and values may come to take, where the device has a bound of its own;
        None: as many as whoever uses this allows."""

    @property
    def exact_widths(self) -> bool:
        """Whether a position's logits have the same bits however many others are in its step
        (up to 16 of a chunk). Speculation gives the text of plain decoding only then."""

    def kv_open(self) -> int:
        """An empty KV slab; returns its handle. It grows as steps write to it."""

    def kv_fork(self, source: int, length: int) -> int:
        """A new slab that starts with the first `length` positions of `source`."""

    def kv_close(self, handle: int) -> None:
        """Frees a slab."""

    def step(self, chunks: Sequence[Chunk]) -> list[Choices]:
        """One forward pass over all chunks; for each chunk a choice of every draw, or the
        error of that draw alone where its logits are not finite."""

    def score(
        self, kv: int, start: int, tokens: TokenArray, targets: TokenArray, top: int
    ) -> list[TokenLogprob]:
        """Runs `tokens` at `start` and returns, for each of the first `len(targets)`
        positions, the log-probability of its target with `top` alternatives. Raises
        LogitsError where logits are not finite."""

    def close(self) -> None:
        """Drops weights and KV memory; no other call may follow."""
