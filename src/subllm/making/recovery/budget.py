"""How long a recovery may go on: a duration, a number of tokens, or not at all."""

from __future__ import annotations

import re
from dataclasses import dataclass

from subllm.errors import UsageError

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
_TOKENS = re.compile(r"(\d+(?:\.\d+)?)([kM]?)tok")
_MULTIPLES = {"": 1, "k": 1_000, "M": 1_000_000}


@dataclass(frozen=True)
class Budget:
    """Either seconds or tokens of text learned from, whole batches of them; the other is
    None. `off` is zero tokens."""

    seconds: float | None = None
    tokens: int | None = None

    @property
    def off(self) -> bool:
        return self.tokens == 0

    def __str__(self) -> str:
        """As `parse_budget` reads it back."""
        if self.off:
            return "off"
        if self.tokens is not None:
            for unit in ("M", "k"):
                if self.tokens % _MULTIPLES[unit] == 0:
                    return f"{self.tokens // _MULTIPLES[unit]}{unit}tok"
            return f"{self.tokens}tok"
        return format_duration(self.seconds or 0.0)


OFF = Budget(tokens=0)


def parse_budget(text: str) -> Budget:
    """ "off", a duration ("90m", "2h", "1h30m", "45s") or tokens ("2Mtok", "500ktok").
    Raises UsageError for anything else, and for nothing at all ("0m")."""
    if text == "off":
        return OFF
    if tokens := _tokens(text):
        return Budget(tokens=tokens)
    if (seconds := _seconds(text)) > 0:
        return Budget(seconds=seconds)
    raise UsageError(
        f"{text!r} is no budget for recovery; use a duration (90m, 2h), tokens (500ktok, 2Mtok) "
        "or off"
    )


def parse_duration(text: str) -> float:
    """Seconds of "90m", "2h", "1h30m" or "45s". Raises UsageError for anything else."""
    seconds = _seconds(text)
    if seconds > 0:
        return seconds
    raise UsageError(f"{text!r} is no duration; use 90m, 2h or 1h30m")


def parse_tokens(text: str) -> int:
    """Tokens of "200k", "1.5M", "250000" or "2Mtok". Raises UsageError for anything else, and for
    none."""
    if tokens := _tokens(text if text.endswith("tok") else f"{text}tok"):
        return tokens
    raise UsageError(f"{text!r} is no number of tokens; use 200k, 1M or 250000")


def format_duration(seconds: float) -> str:
    """The shortest exact text for whole seconds: "1h30m", "45s"."""
    left = round(seconds)
    parts = []
    for unit, size in _UNITS.items():
        count, left = divmod(left, int(size))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _tokens(text: str) -> int:
    match = _TOKENS.fullmatch(text)
    return int(float(match[1]) * _MULTIPLES[match[2]]) if match else 0


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if not match:
        return 0.0
    return sum(
        float(count) * size for count, size in zip(match.groups(), _UNITS.values(), strict=True)
        if count
    )  # fmt: skip
