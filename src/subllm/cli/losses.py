"""What a model lost, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subllm.measuring.evaluation.kept import Kept
    from subllm.models.store.manifest import ModelManifest, Perplexity

ENDED = {
    "budget": "the time or the tokens are used up",
    "asked": "stopped",
    "diverged": "the loss was no number: back at the last good state",
}
"""Why a recovery ended, in words."""

_SLIGHT, _NOTICEABLE, _HEAVY, _SEVERE = (
    "slight loss",
    "noticeable loss",
    "heavy loss",
    "severe loss: expect broken code",
)
_ENOUGH = 8  # problems solved by the dense base, for its share to say something


def agreement(value: Perplexity) -> str:
    """In words, what `Perplexity.agreement` is."""
    return (
        f"{value.agreement:.1%} of {value.tokens:,} held-out tokens have the dense base's first "
        "choice"
    )


def loss_word(before: float, after: float) -> str:
    """A plain word for what perplexity says. Task accuracy falls faster than this, so it is
    for where no problems were asked; see `kept_word`."""
    ratio = after / before
    if ratio < 1.03:
        return _SLIGHT
    if ratio < 1.08:
        return _NOTICEABLE
    if ratio < 1.2:
        return _HEAVY
    return _SEVERE


def kept_word(kept: Kept | None) -> str:
    """The same for what problems say, of what the dense base solves: severe is the loss of more
    than half, heavy of more than a fifth, noticeable of more than a twentieth. "" where too few
    problems are solved by the dense base to tell.

    Forty problems have an error of about ten points, so that the steps are wide.
    """
    if kept is None or kept.share is None or (kept.dense_solved or 0) < _ENOUGH:
        return ""
    for least, word in ((0.95, _SLIGHT), (0.8, _NOTICEABLE), (0.5, _HEAVY)):
        if kept.share >= least:
            return word
    return _SEVERE


def perplexity_rows(manifest: ModelManifest, kept: Kept | None = None) -> list[tuple[str, str]]:
    """Held-out text as facts. The word for the loss is perplexity's, but for the language whose
    problems have one."""
    rows = []
    for domain, value in manifest.perplexity.items():
        line = f"{value.before:.3f} dense -> {value.after:.3f}"
        if not (kept and kept.language == domain and kept_word(kept)):
            line += f"  ({loss_word(value.before, value.after)})"
        rows.append((f"{domain} perplexity", line))
        if value.agreement is not None:
            rows.append((f"{domain} agreement", agreement(value)))
    return rows


def problem_rows(manifest: ModelManifest, kept: Kept | None) -> list[tuple[str, str]]:
    """Problems solved, beside the dense base, as a fact."""
    if kept is None:
        return []
    line = f"{kept.solved} of {kept.asked} solved"
    if kept.dense is None:
        line += f"; how many the dense base solves is not known: 'subllm add {manifest.base.name}'"
        line += f", then 'subllm eval {manifest.name} --task builtin'"
        return [(f"{kept.language} problems", line)]
    line += f", dense {kept.dense_solved}"
    if kept.share is not None:
        line += f" ({kept.share:.0%} kept)".replace("%", " %")
    word = kept_word(kept)
    return [(f"{kept.language} problems", f"{line}: {word}" if word else line)]


def recovery_rows(manifest: ModelManifest) -> list[tuple[str, str]]:
    """What recovery brought and what packing after it cost, as facts."""
    record = manifest.recovery
    if record is None:
        return []
    before, after = record.before, record.after
    of_teacher = f"(in holes with {record.teacher}) " if record.teacher else ""
    rows = [
        (
            "recovered",
            f"on {record.tokens:,} tokens of {record.source}: agreement {of_teacher}"
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
