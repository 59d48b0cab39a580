"""What a model lost, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subllm.store.manifest import Perplexity


def agreement(value: Perplexity) -> str:
    """In words, what `Perplexity.agreement` is."""
    return (
        f"{value.agreement:.1%} of {value.tokens:,} held-out tokens have the dense base's first "
        "choice"
    )


def loss_word(before: float, after: float) -> str:
    """A plain word for what perplexity says. Task accuracy falls faster than this."""
    ratio = after / before
    if ratio < 1.03:
        return "slight loss"
    if ratio < 1.08:
        return "noticeable loss"
    if ratio < 1.2:
        return "heavy loss"
    return "severe loss: expect broken code"
