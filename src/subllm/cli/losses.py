"""What a model lost, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subllm.store.manifest import ModelManifest, Perplexity

ENDED = {
    "budget": "the time or the tokens are used up",
    "asked": "stopped",
    "diverged": "the loss was no number: back at the last good state",
}
"""Why a recovery ended, in words."""


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


def recovery_rows(manifest: ModelManifest) -> list[tuple[str, str]]:
    """What recovery brought and what packing after it cost, as facts."""
    record = manifest.recovery
    if record is None:
        return []
    before, after = record.before, record.after
    rows = [
        (
            "recovered",
            f"on {record.tokens:,} tokens of {record.source}: agreement "
            f"{before.agreement:.1%} -> {after.agreement:.1%}, KL {before.kl:.3f} -> "
            f"{after.kl:.3f} nats (held-out text, before packing)",
        )
    ]
    for domain, value in manifest.perplexity.items():
        if value.unpacked is not None:
            rows.append(
                (
                    f"{domain} packing",
                    f"perplexity {value.unpacked:.3f} -> {value.after:.3f}, {manifest.values} "
                    f"values and {manifest.head} head",
                )
            )
    return rows


def tuning_rows(manifest: ModelManifest) -> list[tuple[str, str]]:
    """What a model learned of own text, as facts."""
    rows = []
    for record in manifest.tunings:
        said = f"from {record.origin}, on {record.tokens:,} tokens of {record.source}"
        if record.before.nll is not None and record.after.nll is not None:
            before, after = math.exp(record.before.nll), math.exp(record.after.nll)
            said += f": perplexity {before:.3f} -> {after:.3f} (held-out text, before packing)"
        rows.append(("tuned", said))
    return rows
