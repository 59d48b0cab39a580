"""How a recovery fits a GPU: arithmetic.

What needs most room is what AdamW knows of every weight that learns. Of as many blocks as do not
fit it lies in the processor's memory (`apart`), which costs time and changes nothing that is
learned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from subllm.errors import UsageError
from subllm.making.recovery.loss import ROWS
from subllm.making.recovery.masters import CHUNK_GPU
from subllm.making.recovery.memory import Need, needed
from subllm.making.recovery.recipe import Recipe
from subllm.models.arch.spec import ArchSpec

_RESERVED = 100_000_000
"""For kernels and libraries' scratch, beside what `memory.needed` has for libraries; bytes."""


def working(spec: ArchSpec, recipe: Recipe) -> int:
    """Bytes that a card takes beside `memory.needed`: there more is worked on at a time than what
    a processor's cache holds."""
    logits = ROWS * spec.vocab_size * 4 * (2 if recipe.top_k else 4)
    exact = ROWS * recipe.top_k * spec.hidden_size * 6
    largest = max(lin.in_features * lin.out_features for lin in spec.linears)
    return logits + exact + min(CHUNK_GPU, largest) * 4 * 4 + _RESERVED


@dataclass(frozen=True)
class Room:
    """Free bytes, on the card and in the processor's memory."""

    card: int
    here: int


def fit_card(
    spec: ArchSpec,
    recipe: Recipe,
    size: int,
    learned: int,
    embedding_rows: int,
    room: Room,
    teacher: ArchSpec | None = None,
) -> tuple[int, Need]:
    """Blocks whose masters and moments lie in the processor's memory, and what the card needs
    then; arguments as of `memory.needed`.

    Raises UsageError where not even weights fit the card, or what is put aside does not fit here.
    """
    extra, layers = working(spec, recipe), spec.num_layers
    need = needed(spec, recipe, size, learned, embedding_rows, teacher)
    bare = needed(spec, recipe, size, 0, embedding_rows, teacher).total + extra
    each = max(1, (need.total + extra - bare) // layers)
    apart = max(0, -((room.card - need.total - extra) // each))
    if apart > layers:
        raise UsageError(
            f"recovery needs {bare / 1e9:.1f} GB of a GPU's memory, even with what is learned kept "
            f"in the processor's, {(bare - room.card) / 1e9:.1f} GB more than are free; free some "
            "of it, choose a smaller model, or use --device cpu"
        )
    here = apart * (each + size * spec.block_params())
    if here > room.here:
        raise UsageError(
            f"recovery on the GPU keeps {here / 1e9:.1f} GB in the processor's memory, "
            f"{(here - room.here) / 1e9:.1f} GB more than are free; close other programs, choose a "
            "smaller model, or use --device cpu"
        )
    more = extra - apart * each
    return apart, replace(need, total=need.total + more)
