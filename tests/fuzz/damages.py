"""Every damage by name, and how often each is done."""

from __future__ import annotations

import random
from collections.abc import Callable

from fuzz.made_up import remake
from fuzz.packed_bytes import (
    cut,
    damage_plane,
    edit_header,
    flip_bits,
    insert,
    overwrite,
    splice,
    swap_planes,
)

Damage = Callable[[random.Random, bytes, bytes], bytes]

DAMAGES: dict[str, tuple[Damage, int]] = {  # with weights: most hope lies in the planes
    "flip_bits": (flip_bits, 2),
    "overwrite": (overwrite, 1),
    "cut": (cut, 1),
    "insert": (insert, 1),
    "splice": (splice, 1),
    "edit_header": (edit_header, 3),
    "swap_planes": (swap_planes, 1),
    "damage_plane": (damage_plane, 4),
    "remake": (remake, 6),
}


def damage(rng: random.Random, whole: bytes, other: bytes) -> tuple[str, bytes]:
    """One damage, at times a second one on its bytes -> what was done, the file's bytes."""
    names = list(DAMAGES)
    name = rng.choices(names, [weight for _, weight in DAMAGES.values()])[0]
    out = DAMAGES[name][0](rng, whole, other)
    if out and rng.random() < 0.15:
        out = flip_bits(rng, out, other)
    return name, out
