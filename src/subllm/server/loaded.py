"""What is told of a loaded model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from subllm.server.pool import Slot


@dataclass(frozen=True)
class LoadedModel:
    """A snapshot for /health: bytes resident, requests running on it, and what was drafted
    for it since it was loaded: tokens by source ("ngram", "draft"), and how many of them the
    model accepted. `draft_failure` tells which model does not draft and why."""

    name: str
    resident_bytes: int
    active: int
    draft: str | None = None
    draft_failure: str | None = None
    drafted: Mapping[str, tuple[int, int]] = field(default_factory=dict)

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
        )
