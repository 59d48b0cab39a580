"""V(n): what a step over n tokens of one sequence costs, in units of one over a single token.

Each of the n positions draws its token, as where drafts are verified.
"""

from __future__ import annotations

import random
import statistics
import time
from typing import Any

import numpy as np

from subllm.engine.backend import Backend, Chunk, Draw
from subllm.engine.request import SamplingParams

MOST = 16
PROMPT = 64
_GREEDY = SamplingParams()


def step_seconds(backend: Backend, seconds: float = 3.0) -> list[float]:
    """Medians for n = 1 to MOST, after a prompt of PROMPT tokens; all n in turns, for about
    `seconds` and five times at least."""
    chance = random.Random(0)
    tokens = np.array(chance.choices(range(backend.vocab_size), k=PROMPT + MOST), np.int32)
    kv = backend.kv_open()
    try:
        backend.step([Chunk(kv, 0, tokens[:PROMPT])])
        chunks = {n: _chunk(kv, tokens, n) for n in range(1, MOST + 1)}
        runs: dict[int, list[float]] = {n: [] for n in chunks}
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(runs[MOST]) < 5:
            for n, chunk in chunks.items():
                start = time.perf_counter()
                backend.step([chunk])
                runs[n].append(time.perf_counter() - start)
    finally:
        backend.kv_close(kv)
    return [statistics.median(runs[n]) for n in chunks]


def _chunk(kv: int, tokens: Any, n: int) -> Chunk:
    draws = tuple(Draw(_GREEDY, tokens[: PROMPT + place + 1], PROMPT, 0.0) for place in range(n))
    return Chunk(kv, PROMPT, tokens[PROMPT : PROMPT + n], draws)
