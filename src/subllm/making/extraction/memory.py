"""Refuses what the machine has too little memory for, before it starts."""

from __future__ import annotations

from collections.abc import Callable

import psutil

from subllm.errors import UsageError


def available_bytes() -> int:
    """What this process may come to hold: its own memory and what is free."""
    return int(psutil.virtual_memory().available + psutil.Process().memory_info().rss)


def require_memory(what: str, samples: int, peak: Callable[[int], int]) -> None:
    """peak: bytes that `what` takes with so many calibration sequences. Raises UsageError,
    which says how much is missing and what would fit, where `samples` take too much."""
    needed, free = peak(samples), available_bytes()
    if needed <= free:
        return
    fits = samples
    while fits and peak(fits) > free:
        fits //= 2
    advice = (
        f"samples = {fits} in [calibration] of a recipe would fit"
        if fits
        else "a smaller base is what would fit"
    )
    raise UsageError(
        f"{what} takes about {needed / 1e9:.1f} GB of memory here, "
        f"{(needed - free) / 1e9:.1f} GB more than there is; {advice}"
    )
