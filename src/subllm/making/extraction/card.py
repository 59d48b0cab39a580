"""What streaming blocks through a GPU takes of its memory, and where that fits: arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from subllm.engine.placement import Card
from subllm.errors import UsageError
from subllm.making.pruning.method import HESSIAN_COLUMNS, WHOLE_MODEL, Need
from subllm.models.arch.spec import ArchSpec
from subllm.quantities import size_text

_RESERVED = 512 << 20  # libraries and what allocators keep; bytes
_CHOOSING = 16  # bytes for each weight of a matrix at work: itself, its scores and their order
_HEAD_ROWS, _HEAD_TOKENS = 16384, 1024  # multiplied at a time


def card_bytes(
    spec: ArchSpec, batch: int, seq_len: int, heldout_tokens: int, needs: frozenset[Need], size: int
) -> int:
    """Bytes on the card at most, of an extraction whose method looks at one block at a time.

    batch, seq_len  sequences of a forward pass, and their length in tokens
    heldout_tokens  of one domain
    size            bytes of a value of the compute dtype
    """
    hidden, inter = spec.hidden_size, spec.intermediate_size
    inputs = {linear.group: linear.in_features for linear in spec.linears}
    largest = max(linear.out_features * linear.in_features for linear in spec.linears)
    tokens = batch * seq_len
    attention = (2 * spec.num_heads + 2 * spec.num_kv_heads) * spec.head_dim
    running = tokens * ((6 * hidden + attention + 3 * inter) * size + 4 * max(inputs.values()))
    statistics = 0
    if Need.HESSIAN in needs:
        statistics += 4 * sum(columns * HESSIAN_COLUMNS for columns in inputs.values())
    if Need.FULL_HESSIAN in needs:
        statistics += 4 * sum(columns**2 for columns in inputs.values())
        statistics += 3 * 4 * max(inputs.values()) ** 2
    block = spec.block_params() * size + _CHOOSING * largest + running + statistics
    embedding = spec.vocab_size * hidden * size + 2 * tokens * hidden * size
    head = (
        heldout_tokens * hidden * size
        + min(_HEAD_ROWS, spec.vocab_size) * hidden * (4 + size)
        + 3 * _HEAD_TOKENS * _HEAD_ROWS * 4
    )
    return _RESERVED + max(block, embedding, head)


def fits_by_block(needs: frozenset[Need]) -> bool:
    """Whether `card_bytes` tells what a method takes: others have the whole model at work."""
    return not needs & WHOLE_MODEL


def card_for(cards: Sequence[Card], needed: int) -> Card | None:
    """The one with the most free memory, where `needed` bytes fit it."""
    best = max(cards, key=lambda card: (card.free, -card.index), default=None)
    return best if best is not None and best.free >= needed else None


def too_small(cards: Sequence[Card], needed: int) -> UsageError:
    best = max(cards, key=lambda card: card.free)
    return UsageError(
        f"blocks take {size_text(needed)} of a GPU's memory even one sequence at a time, and "
        f"{best}; free some of it, give shorter sequences (seq_len of a recipe), or use "
        "--device cpu"
    )


def fitting_batch(batch: int, needed: Callable[[int], int], free: int) -> int:
    """Sequences of a forward pass: `batch`, halved until `needed` of them fits `free` bytes, or
    1."""
    while batch > 1 and needed(batch) > free:
        batch //= 2
    return batch
