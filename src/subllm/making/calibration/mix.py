"""Mixtures of sources: `pack:python=0.7,~/src/app=0.3`, shares of the tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from subllm.errors import CalibrationError

BESIDE = 0.5
"""Share of sources that join others, where nobody says."""
_HOW = "write a mix as pack:python=0.7,PATH=0.3"


def parse_mix(spec: str) -> dict[str, float]:
    """Source -> share; the shares sum to 1. A source without weights is a mix of one.

    Raises CalibrationError for weights that are missing, no numbers, negative, or all 0.
    """
    parts = [part.strip() for part in spec.split(",")]
    if len(parts) == 1 and "=" not in spec:
        return {spec: 1.0}
    weights: dict[str, float] = {}
    for part in parts:
        source, equals, weight = part.rpartition("=")
        if not equals or not source:
            raise CalibrationError(f"{part!r} in --calibration has no weight; {_HOW}")
        try:
            value = float(weight)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0:
            raise CalibrationError(
                f"{weight!r} is no weight for {source!r} in --calibration; {_HOW}"
            )
        weights[source] = weights.get(source, 0.0) + value
    total = sum(weights.values())
    if total == 0:
        raise CalibrationError(f"the weights in --calibration sum to 0; {_HOW}")
    return {source: value / total for source, value in weights.items() if value}


def parse_beside(spec: str) -> tuple[str, float]:
    """Sources that join others: their mix, as `parse_mix` reads it, and their share of all.
    "A=0.3,B=0.2": half of all; "A" without a share: BESIDE. Raises CalibrationError, also for
    shares that leave nothing to the others."""
    if "=" not in spec or Path(spec).expanduser().exists():
        return spec, BESIDE
    parse_mix(spec)
    total = sum(float(part.rpartition("=")[2]) for part in spec.split(","))
    if total >= 1:
        raise CalibrationError(
            f"the shares of {spec!r} leave nothing to other text; write them as parts of 1, such "
            "as PATH=0.3, or give the text to --calibration alone"
        )
    return spec, total


def budgets(shares: Sequence[tuple[object, float]], tokens: int) -> list[int]:
    """Tokens of each source: its share of `tokens`, rounded so that they sum to it."""
    exact = [share * tokens for _, share in shares]
    counts = [int(value) for value in exact]
    by_rest = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for index in by_rest[: tokens - sum(counts)]:
        counts[index] += 1
    return counts
