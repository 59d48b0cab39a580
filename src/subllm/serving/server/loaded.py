"""What is told of a loaded model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from subllm.serving.server.pool import Slot


@dataclass(frozen=True)
class LoadedModel:
    """A snapshot for /health: bytes resident, requests running on it, and what was drafted
    for it since it was loaded: tokens by source ("ngram", "draft"), and how many of them the
    model accepted. `draft_failure` tells which model does not draft and why. `keep_alive`,
    `unload_at` as of the slot."""

    name: str
    resident_bytes: int
    active: int
    draft: str | None = None
    draft_failure: str | None = None
    drafted: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    keep_alive: float = math.inf
    unload_at: float | None = None

    @classmethod
    def of(cls, slot: Slot) -> LoadedModel:
        """Of the engine as it stands. Called by the engine thread."""
        return cls(
            slot.ref.name,
            slot.engine.resident_bytes,
            len(slot.jobs),
            slot.draft.name if slot.draft else None,
            slot.draft_failure,
            {
                source: (counts.drafted, counts.accepted)
                for source, counts in slot.engine.speculation.sources.items()
            },
            slot.keep_alive,
            slot.unload_at,
        )
