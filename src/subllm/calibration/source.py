"""Calibration data: where text comes from, and the token matrix it becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class CalibrationData:
    """Packed calibration tokens and where they came from.

    tokens         int32 [samples, seq_len]; documents are joined with the model's
                   end-of-text token and cut without padding
    source         "pack:python", "path:/abs", "jsonl:/abs", "hub:py_alpaca", "mix:..."
    digest         sha256-<hex> over the little-endian int32 token matrix
    unique_tokens  tokens of distinct documents before any repetition
    """

    tokens: npt.NDArray[np.int32]
    source: str
    digest: str
    seed: int
    unique_tokens: int


Encode = Callable[[str], list[int]]


class TextSource(Protocol):
    """Documents of one origin, in a fixed order, already rendered as served."""

    @property
    def name(self) -> str: ...

    def documents(self) -> Iterator[str]:
        """Raises CalibrationError (empty, malformed), AcquireError (hub sets)."""
