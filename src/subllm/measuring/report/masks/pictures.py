"""The heat maps of a comparison of masks, from its records alone.

Pairs with a dense model are left out where there are others: their distance says only how
much was pruned, and would take most of the colours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from subllm.measuring.report.heatmaps import Panel, heatmaps
from subllm.measuring.report.masks.records import Comparison, Overlap, Pair

_SCALE = "Jaccard distance of kept weights"
_DIGITS = ".3f"


def models_picture(comparison: Comparison) -> bytes:
    """PNG: every model with every other, all weights together."""
    pairs = _drawn(comparison)
    drawn = sorted({index for pair in pairs for index in (pair.a, pair.b)})
    place = {index: at for at, index in enumerate(drawn)}
    values = np.full((len(drawn), len(drawn)), np.nan)
    overlap = comparison.overlap()
    for pair in pairs:
        a, b = place[pair.a], place[pair.b]
        values[a, b] = values[b, a] = overlap.distance(pair.a, pair.b)
    labels = [comparison.labels[index] for index in drawn]
    panel = Panel("all layers and types", values, labels, labels)
    return heatmaps([panel], title=comparison.header.base, scale=_SCALE, form=_DIGITS)


def types_picture(comparison: Comparison) -> bytes:
    """PNG: pairs by type, all layers together."""
    overlaps = [comparison.overlap(role=role) for role in comparison.roles]
    panel = Panel("by type, all layers", _by_pair(comparison, overlaps),
                  _pairs(comparison), comparison.roles)  # fmt: skip
    return heatmaps([panel], title=comparison.header.base, scale=_SCALE, form=_DIGITS)


def layers_picture(comparison: Comparison) -> bytes:
    """PNG: pairs by layer, a panel for all types together and one for each."""
    labels = [str(layer) for layer in comparison.layers]
    panels = []
    for role in (None, *comparison.roles):
        overlaps = [comparison.overlap(layer=layer, role=role) for layer in comparison.layers]
        values = _by_pair(comparison, overlaps)
        panels.append(Panel(role or "all types", values, _pairs(comparison), labels))
    title = f"{comparison.header.base} by layer"
    return heatmaps(panels, title=title, scale=_SCALE, across=2)


def _drawn(comparison: Comparison) -> list[Pair]:
    pruned = [pair for pair in comparison.pairs if pair.kind != "dense"]
    return pruned or list(comparison.pairs)


def _by_pair(comparison: Comparison, overlaps: list[Overlap]) -> npt.NDArray[np.float64]:
    """[pairs, overlaps]"""
    pairs = _drawn(comparison)
    return np.array([[each.distance(pair.a, pair.b) for each in overlaps] for pair in pairs])


def _pairs(comparison: Comparison) -> list[str]:
    labels = comparison.labels
    return [f"{labels[pair.a]} / {labels[pair.b]}" for pair in _drawn(comparison)]
