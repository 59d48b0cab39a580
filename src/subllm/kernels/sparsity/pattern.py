"""Sparsity patterns: which share of a matrix is removed, and in what units.

dense    nothing is removed
P%       unstructured: the lowest P % of every output row go (floor)
N:M      of every M consecutive inputs the N highest are kept
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from subllm.errors import PatternError

GROUP_SIZES = (4, 8, 16, 32)

Kind = Literal["dense", "unstructured", "nm"]


@dataclass(frozen=True)
class Pattern:
    """A parsed pattern; make one with `parse`. `str` gives the canonical spelling.

    hundredths   share removed in 1/100 of a percent (unstructured only), so that
                 counting weights is exact
    n, m         kept weights per group, group size (nm only)
    """

    kind: Kind
    hundredths: int = 0
    n: int = 0
    m: int = 0

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Reads "dense", "50%", "62.5%" or "8:16". Raises PatternError."""
        spelled = text.strip().lower()
        if spelled == "dense":
            return cls("dense")
        if match := re.fullmatch(r"(\d{1,2})(?:\.(\d{1,2}))?%", spelled, re.ASCII):
            hundredths = int(match[1]) * 100 + int((match[2] or "").ljust(2, "0"))
            if hundredths == 0:
                raise PatternError("pattern '0%' removes nothing; use 'dense'")
            return cls("unstructured", hundredths=hundredths)
        if match := re.fullmatch(r"(\d{1,2}):(\d{1,2})", spelled, re.ASCII):
            n, m = int(match[1]), int(match[2])
            if m not in GROUP_SIZES or not 0 < n < m:
                raise PatternError(
                    f"pattern {text!r} keeps {n} of {m}; use N:M with M one of 4, 8, 16, 32 "
                    "and 0 < N < M"
                )
            return cls("nm", n=n, m=m)
        raise PatternError(
            f"pattern {text!r} is not understood; use a share removed such as 50%, "
            "N of M kept such as 8:16, or dense"
        )

    def __str__(self) -> str:
        if self.kind == "nm":
            return f"{self.n}:{self.m}"
        return f"{self.percent:g}%" if self.kind == "unstructured" else "dense"

    @property
    def percent(self) -> float:
        """Share removed, in percent (unstructured only, else 0)."""
        return self.hundredths / 100

    @property
    def density(self) -> float:
        """Share kept, 0 to 1 (nominal: rows of an unstructured matrix round up)."""
        if self.kind == "nm":
            return self.n / self.m
        return 1 - self.hundredths / 10_000

    def check(self, rows: int, cols: int) -> None:
        """Raises PatternError when a [rows, cols] matrix cannot take this pattern."""
        if rows < 1 or cols < 1:
            raise PatternError(f"a matrix of shape [{rows}, {cols}] has no weights")
        if self.kind == "nm" and cols % self.m:
            raise PatternError(
                f"pattern {self} needs a multiple of {self.m} input columns, not {cols}; "
                "use a smaller group or a share such as 50%"
            )

    def dropped_per_row(self, cols: int) -> int:
        """Weights that a row of `cols` loses."""
        if self.kind == "nm":
            return cols // self.m * (self.m - self.n)
        return cols * self.hundredths // 10_000

    def kept_per_row(self, cols: int) -> int:
        return cols - self.dropped_per_row(cols)
