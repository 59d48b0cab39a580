"""Who guesses tokens ahead of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from subllm.engine.draft import Draft
from subllm.engine.speculative.pace import Pace
from subllm.engine.speculative.proposer import Proposer


@dataclass(frozen=True)
class Guessing:
    """draft      a model that does; see `LocalEngine.set_draft`
    proposers  the others; None: n-grams
    pace       when it is worth while; None: as the engine learns
    """

    draft: Draft | None = None
    proposers: Sequence[Proposer] | None = None
    pace: Pace | None = None
