"""How a recovery fits a GPU: arithmetic.

What needs most room is what AdamW knows of every weight that learns. Of as many blocks as do not
fit it lies in the processor's memory (`apart`), which costs time and changes nothing that is
learned.
"""

from __future__ import annotations

from dataclasses import replace

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


def fit_card(
    spec: ArchSpec,
    recipe: Recipe,
    size: int,
    learned: int,
    embedding_rows: int,
    free: int,
    free_here: int,
    teacher: ArchSpec | None = None,
) -> tuple[int, Need]:
    """Blocks whose masters and moments lie in the processor's memory, and what the card needs
    then; arguments as of `memory.needed`. free: bytes on the card; free_here: in the processor's
    memory.

    Raises UsageError where not even weights fit the card, or what is put aside does not fit here.
    """
    extra, layers = working(spec, recipe), spec.num_layers
    need = needed(spec, recipe, size, learned, embedding_rows, teacher)
    bare = needed(spec, recipe, size, 0, embedding_rows, teacher).total + extra
    each = max(1, (need.total + extra - bare) // layers)
    apart = max(0, -((free - need.total - extra) // each))
    if apart > layers:
        raise UsageError(
            f"recovery needs {bare / 1e9:.1f} GB of a GPU's memory, even with what is learned kept "
            f"in the processor's, {(bare - free) / 1e9:.1f} GB more than are free; free some of "
            "it, choose a smaller model, or use --device cpu"
        )
    here = apart * (each + size * spec.block_params())
    if here > free_here:
        raise UsageError(
            f"recovery on the GPU keeps {here / 1e9:.1f} GB in the processor's memory, "
            f"{(here - free_here) / 1e9:.1f} GB more than are free; close other programs, choose a "
            "smaller model, or use --device cpu"
        )
    more = extra - apart * each
    return apart, replace(need, total=need.total + more)
