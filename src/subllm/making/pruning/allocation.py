"""Where density stays: the pattern of each matrix of a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from subllm.errors import PatternError
from subllm.kernels.sparsity.pattern import Pattern

Shape = tuple[int, int]


@dataclass(frozen=True)
class Allocation:
    """`tensors` gives matrices, by full name ("model.layers.0.mlp.up_proj.weight"), another
    pattern than `default`; "dense" is one. What equals the default anyway is left out, so
    that two allocations are equal when all matrices have the same patterns."""

    default: Pattern
    tensors: Mapping[str, Pattern] = field(default_factory=dict)

    def __post_init__(self) -> None:
        others = {name: p for name, p in sorted(self.tensors.items()) if p != self.default}
        object.__setattr__(self, "tensors", others)

    @classmethod
    def of_patterns(cls, patterns: Mapping[str, Pattern]) -> Allocation:
        """From the pattern of every matrix; the most frequent one is the default, the first
        of several."""
        counts: dict[Pattern, int] = {}
        for pattern in patterns.values():
            counts[pattern] = counts.get(pattern, 0) + 1
        return cls(max(counts, key=lambda pattern: counts[pattern]), patterns)

    def of(self, name: str) -> Pattern:
        """The pattern of the matrix `name`."""
        return self.tensors.get(name, self.default)

    @property
    def uniform(self) -> bool:
        """Whether all matrices have the default."""
        return not self.tensors

    def __str__(self) -> str:
        """The pattern where it is one, else "mixed-" and six digits, the same for the same
        allocation."""
        if self.uniform:
            return str(self.default)
        told = json.dumps(self.identity(), sort_keys=True).encode()
        return f"mixed-{hashlib.sha256(told).hexdigest()[:6]}"

    def identity(self) -> Any:
        """JSON-ready: the pattern where it is one, as plans always had it."""
        if self.uniform:
            return str(self.default)
        return {
            "default": str(self.default),
            "tensors": {name: str(pattern) for name, pattern in self.tensors.items()},
        }

    def check(self, shapes: Mapping[str, Shape]) -> None:
        """shapes: of all matrices, by full name. Raises PatternError for a name that is not
        among them and for a matrix that cannot take its pattern."""
        for name in self.tensors:
            if name not in shapes:
                raise PatternError(f"a pattern is given for {name}, which the model does not have")
        for name, shape in shapes.items():
            self.of(name).check(*shape)
