"""From a measured sensitivity to where density stays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from subllm.errors import UsageError
from subllm.kernels.sparsity.layout import Values
from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.extraction.quantiser import stored_as
from subllm.making.extraction.sensitivity.divergence import Divergence
from subllm.making.extraction.sensitivity.record import Group, Sensitivity, names_of
from subllm.making.extraction.shared import DENSE
from subllm.making.extraction.traffic import block_bytes, linears_of, matrix_bytes, shared_bytes
from subllm.making.pruning.allocation import Allocation
from subllm.making.pruning.budget import Level, cheapest, steps, within
from subllm.models.arch.spec import ArchSpec

LEVELS = (*(Pattern("nm", n=n, m=16) for n in range(4, 13)), DENSE)
"""What a group may get. From 13:16 on, dense int8 costs hardly more bytes and is as fast."""

_LEAST = 1e-9  # nats; what measures 0 has a logarithm all the same


@dataclass(frozen=True)
class Chosen:
    """share      bytes of weights read for a token, relative to dense int8 of the same base
    loss       the groups' losses added up, in nats; see `Sensitivity`
    agreement  held-out greedy agreement with the dense base, estimated from that
    """

    allocation: Allocation
    share: float
    loss: float
    agreement: float


class Allocator:
    """Chooses patterns for one base and one way to store values."""

    def __init__(
        self,
        spec: ArchSpec,
        vectors: Mapping[str, int],
        measured: Sensitivity,
        values: Values,
        head: Values,
    ) -> None:
        """vectors: elements of norms and biases, by name."""
        self._spec, self._measured, self._values = spec, measured, values
        self._groups = sorted(measured.alone)
        self._rest = shared_bytes(spec, vectors, head)
        dense = block_bytes(spec, Allocation(DENSE), "int8")
        self._whole = dense + shared_bytes(spec, vectors, "int8")

    def within(self, share: float) -> Chosen:
        """The least loss at `share` of dense int8's bytes. Raises UsageError for a share that
        no allocation has."""
        budget = share * self._whole - self._rest
        try:
            return self._made(within(self._levels, budget))
        except ValueError:
            least = self._made(cheapest(self._levels))
            raise UsageError(
                f"budget {share:g} is too small; with {self._values} values {LEVELS[0]} "
                f"everywhere takes {math.ceil(1000 * least.share) / 1000:g}"
            ) from None

    def like(self, pattern: Pattern) -> Chosen:
        """The least loss at no more bytes than `pattern` everywhere."""
        return self.within(self.judge(Allocation(pattern)).share)

    def keeping(self, agreement: float) -> Chosen:
        """The fewest bytes whose estimated agreement is that, or everything dense."""
        chosen = cheapest(self._levels)
        found = self._made(chosen)
        for step in steps(self._levels):
            if found.agreement >= agreement:
                break
            chosen[step.group] = step.level
            found = self._made(chosen)
        return found

    def judge(self, allocation: Allocation) -> Chosen:
        """What is expected of any allocation of the levels."""
        levels = [allocation.of(next(iter(names_of(self._spec, g)))) for g in self._groups]
        return self._made([LEVELS.index(level) for level in levels])

    @cached_property
    def _levels(self) -> list[list[Level]]:
        linears = linears_of(self._spec)
        found = []
        for group in self._groups:
            names = names_of(self._spec, group)
            levels = []
            for pattern in LEVELS:
                cost = sum(
                    matrix_bytes(*shape, pattern, stored_as(linears[name], self._values))
                    for name, shape in names.items()
                )
                levels.append(Level(cost, self.loss(group, pattern)))
            found.append(levels)
        return found

    def _made(self, chosen: Sequence[int]) -> Chosen:
        patterns = {
            name: LEVELS[index]
            for group, index in zip(self._groups, chosen, strict=True)
            for name in names_of(self._spec, group)
        }
        pairs = list(zip(self._levels, chosen, strict=True))
        loss = sum(levels[index].loss for levels, index in pairs)
        cost = sum(levels[index].cost for levels, index in pairs)
        share = (cost + self._rest) / self._whole
        return Chosen(Allocation.of_patterns(patterns), share, loss, self._agreement(loss))

    def loss(self, group: Group, pattern: Pattern) -> float:
        """KL in nats with that group alone at `pattern`. Between the patterns that it was
        measured at its logarithm goes along with that of the whole model; beyond, and where
        there is one alone, it goes up and down as that."""
        if pattern.kind == "dense":
            return 0.0
        of = {n: max(found.kl, _LEAST) for n, found in _by_n(self._measured.alone[group]).items()}
        low, high = min(of), max(of)
        shape, n = self._shape, pattern.n
        top = max(of.values())  # noise must not make less density the better
        if n <= low:
            return top * math.exp(shape(n) - shape(low))
        if n >= high:
            return of[high] * math.exp(shape(n) - shape(high))
        along = (shape(n) - shape(low)) / (shape(high) - shape(low))
        return math.exp(math.log(top) + along * (math.log(of[high]) - math.log(top)))

    def _shape(self, n: int) -> float:
        """Logarithm of the whole model's KL at n of 16."""
        whole = {m: max(found.kl, _LEAST) for m, found in _by_n(self._measured.whole).items()}
        return _line(n, sorted(whole), [math.log(whole[m]) for m in sorted(whole)])

    def _agreement(self, loss: float) -> float:
        """Of a model whose groups' losses add up to `loss`, as whole models had it whose groups
        do: the logarithm of what differs against that of the sum."""
        if loss <= 0:
            return 1.0
        whole = _by_n(self._measured.whole)
        points = sorted(
            (
                math.log(sum(self.loss(g, Pattern("nm", n=n, m=16)) for g in self._groups)),
                math.log(max(1 - found.agreement, 1e-6)),
            )
            for n, found in whole.items()
        )
        differ = _line(math.log(loss), [x for x, _ in points], [y for _, y in points])
        return max(0.0, 1 - math.exp(differ))


def _by_n(of: Mapping[str, Divergence]) -> dict[int, Divergence]:
    return {Pattern.parse(pattern).n: found for pattern, found in of.items()}


def _line(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Linear between the points (xs ascending), and on along the outer ones."""
    at = int(np.clip(np.searchsorted(xs, x), 1, len(xs) - 1))
    slope = (ys[at] - ys[at - 1]) / (xs[at] - xs[at - 1])
    return ys[at] + slope * (x - xs[at])
