"""How far a recovery is: in all, and within the budget of one run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from subllm.making.recovery.budget import Budget
from subllm.making.recovery.task import CurvePoint, Weights


@dataclass(frozen=True)
class Report:
    """After a step, for whoever watches.

    tokens, seconds    so far in this run; `loss` and `agreement` are the step's own
    tokens_per_second  of this run, everything included
    left               seconds that the budget leaves, as far as that can be told
    point              the newest of the curve
    """

    tokens: int
    seconds: float
    loss: float
    agreement: float
    tokens_per_second: float
    left: float
    point: CurvePoint


@dataclass
class Standing:
    """What a state says beside the tensors.

    step          batches learned from, in all; AdamW counts them too
    budget        of the run that is under way, None when it was used up
    run_tokens, run_seconds  what that run has taken of it
    rounding      whether values are rounded by now
    """

    key: str
    step: int = 0
    seconds: float = 0.0
    budget: str | None = None
    run_tokens: int = 0
    run_seconds: float = 0.0
    rounding: bool = False
    curve: list[CurvePoint] = field(default_factory=list)

    def nearest(self, batch: int) -> float:
        """The lowest held-out KL on the curve by when the run began; `batch`: tokens of a step.
        The same whether the run was resumed or not."""
        began = self.step * batch - self.run_tokens
        return min((p.heldout_kl for p in self.curve if p.tokens <= began), default=math.inf)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Standing:
        curve = [CurvePoint(**point) for point in data["curve"]]
        return cls(**(data | {"curve": curve}))


@dataclass
class Run:
    """One call of `Recovery.run`; `began` is moved back by what a resumed run had taken."""

    budget: Budget
    began: float
    on_better: Callable[[CurvePoint, Weights], None] | None
    stopped: Callable[[], bool] | None
    on_step: Callable[[Report], None] | None

    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def share(self, standing: Standing) -> float:
        """Of the budget, used up."""
        if self.budget.tokens is not None:
            return standing.run_tokens / max(self.budget.tokens, 1)
        return min(self.elapsed() / (self.budget.seconds or 1.0), 1.0)

    def over(self, standing: Standing, batch: int, took: float) -> bool:
        """Whether another batch would be too much; `took`: seconds of the last one."""
        if self.budget.tokens is not None:
            return standing.run_tokens + batch > self.budget.tokens
        return self.elapsed() + took > (self.budget.seconds or 0.0)

    def steps_left(self, standing: Standing, batch: int, most: int) -> int:
        """Batches that are learned from yet, at least 1 and at most `most`: of a time, as many as
        it holds at the pace so far. What a teacher is asked beyond them is time lost."""
        if self.budget.tokens is None:
            if not standing.run_tokens:
                return most
            pace = self.elapsed() / (standing.run_tokens / batch)
            left = (self.budget.seconds or 0.0) - self.elapsed()
            return max(1, min(most, int(left / pace)))
        return max(1, min(most, (self.budget.tokens - standing.run_tokens) // batch))
