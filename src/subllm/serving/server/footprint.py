"""What a model takes of the memory, before it is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Footprint:
    """Bytes.

    parts  of the weights, by digest: models that have a part of the same digest share it
    kv     keys and values of one context
    """

    parts: Mapping[str, int] = field(default_factory=dict)
    kv: int = 0

    @property
    def weights(self) -> int:
        return sum(self.parts.values())


NOTHING = Footprint()


def weights_of(footprints: Iterable[Footprint]) -> int:
    """Bytes of all weights, what several share counted once."""
    parts: dict[str, int] = {}
    for footprint in footprints:
        parts |= footprint.parts
    return sum(parts.values())
