"""Engines on backends of a test's own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from subllm.engine.draft import Draft
from subllm.engine.engine import LocalEngine
from subllm.engine.engine_model import EngineModel
from subllm.engine.limits import EngineLimits
from subllm.engine.speculative.guessing import Guessing
from subllm.engine.speculative.pace import Pace
from subllm.engine.speculative.proposer import Proposer
from subllm.models.text.tokenizer import Tokenizer


def local_engine(
    backend: Any,
    tokenizer: Tokenizer,
    *,
    name: str = "tiny",
    context_length: int = 256,
    stop_tokens: tuple[str, ...] = (),
    draft: Draft | None = None,
    proposers: list[Proposer] | None = None,
    pace: Pace | None = None,
    clock: Callable[[], float] = time.perf_counter,
    **limits: Any,
) -> LocalEngine:
    """limits: those of `EngineLimits`."""
    return LocalEngine(
        EngineModel(name, tokenizer, context_length, stop_tokens),
        backend,
        limits=EngineLimits(**limits),
        guessing=Guessing(draft, proposers, pace),
        clock=clock,
    )
