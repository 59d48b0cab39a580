"""A base as a study needs it: what all its models share."""

from __future__ import annotations

from dataclasses import dataclass

from subllm.kernels.sparsity.layout import BITS, Values
from subllm.making.pruning.allocation import Allocation
from subllm.measuring.evaluation.bench import TextSide
from subllm.models.arch.spec import ArchSpec
from subllm.models.store.store import Store


@dataclass(frozen=True)
class Ground:
    """digest: of the base's manifest."""

    name: str
    digest: str
    text: TextSide
    spec: ArchSpec

    def bytes_per_token(self, allocation: Allocation, values: Values, head: Values) -> float:
        """Of weights, that decoding one token reads from a model of this kind: kept values,
        masks and head."""
        bits = 0.0
        for name, (rows, cols) in self.spec.matrices().items():
            pattern = allocation.of(name)
            mask = 0 if pattern.kind == "dense" else 1
            bits += rows * cols * (pattern.density * BITS[values] + mask)
        return (bits + self.spec.vocab_size * self.spec.hidden_size * BITS[head]) / 8


def open_ground(store: Store, base: str) -> Ground:
    """Raises UnknownNameError for a base that is not in the store, UsageError for a model."""
    # Imported late: extraction brings torch, which takes seconds.
    from subllm.making.extraction.prepare import open_base

    digest, manifest, reader, tokenizer = open_base(store, base)
    return Ground(base, digest, TextSide(base, tokenizer, manifest.prompt), reader.spec)
