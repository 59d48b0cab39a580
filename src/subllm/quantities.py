"""Durations and sizes as people write them."""

from __future__ import annotations

import math
import re

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_DURATION = re.compile(rf"-?(?:{_PART.pattern})+")
_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BYTES |= {f"{unit}i": 2 ** (10 * step) for step, unit in enumerate("kmgt", 1)}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]?i?)b?", re.IGNORECASE)
_SHARE = re.compile(r"(\d+(?:\.\d+)?) ?%")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def seconds_of(given: str | float) -> float:
    """Seconds of 300, "300", "5m", "1h30m" or "500ms"; less than 0 is math.inf, for ever, as
    Ollama has it. Raises ValueError for anything else."""
    text = str(given).strip()
    if _NUMBER.fullmatch(text):
        seconds = float(text)
    elif _DURATION.fullmatch(text):
        seconds = sum(float(count) * _SECONDS[unit] for count, unit in _PART.findall(text))
        seconds = -seconds if text.startswith("-") else seconds
    else:
        try:
            seconds = float(given)  # 1e3
        except ValueError:
            seconds = math.nan
    if math.isnan(seconds):
        raise ValueError("use seconds, or a duration such as 5m or 1h30m (0: at once, -1: never)")
    return math.inf if seconds < 0 else seconds


def bytes_of(text: str, whole: int) -> int:
    """Bytes of "4GB", "512MiB" or "4000000000", or of a share of `whole`, "75%". Raises
    ValueError for anything else, and for nothing at all."""
    share, size = _SHARE.fullmatch(text.strip()), _SIZE.fullmatch(text.strip())
    count = 0.0
    if share and float(share[1]) <= 100:
        count = whole * float(share[1]) / 100
    elif size and size[2].lower() in _BYTES:
        count = float(size[1]) * _BYTES[size[2].lower()]
    if count >= 1:
        return int(count)
    raise ValueError("use a size such as 4GB or 512MiB, or a share such as 75%")


def size_text(count: int) -> str:
    """Bytes for a person, decimal: 491 MB, 1.2 GB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}" if unit == "GB" else f"{count / size:.0f} {unit}"
    return f"{count} bytes"
