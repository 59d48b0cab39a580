"""How a recovery learns: everything but the text, the masks and the time it gets."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from subllm.errors import UsageError

Moments = Literal["float32", "bfloat16", "int8"]


@dataclass(frozen=True)
class Recipe:
    """Two recoveries with the same recipe, masks, text and budget of tokens are the same.

    lr            AdamW's step at its highest: 1e-4 breaks a 0.5b, 1.5e-5 does not
    near          held-out KL in nats; a student that begins a run below it takes steps that are
                  smaller in proportion, as `lr` would throw it off before it learned. Not where
                  next tokens are learned, which is a goal of its own
    warmup        share of the budget in which the step rises from 0
    final         share of `lr` at which the cosine after that ends
    betas, eps    AdamW's; there is no weight decay, which would pull towards the pruned state
    clip          the longest gradient that one tensor may have (2-norm over kept values); longer
                  ones are scaled. Per tensor, as each is used up before the next exists
    sequences     rows of `length` tokens that one step learns from
    temperature   of both distributions; the loss is multiplied by its square
    disagreement  weight of a token at which the first choices of student and teacher
                  differ, where others have 1
    next_token    share of the true next token in what is learned, the rest is the teacher's
                  distribution; above 0, what is better is judged by the next tokens of held-out
                  text, not by the teacher
    top_k         outcomes of the teacher that are told apart, the others are one "rest"; 0 is
                  the whole vocabulary, with the teacher beside the student
    hidden        weight of the error of the states before the head beside the divergence
                  (`hidden_error`); with a `top_k` the dense base's states go to the disk too, a
                  byte for each of them
    ends          whether at the end of a hole that the text ends is learned, instead of what the
                  teacher thinks; with a `top_k`
    vectors       whether norms and biases learn too
    dense         whether block matrices without a mask learn too
    moments       what AdamW's two moments are kept in; int8 asks for bitsandbytes, and is what a
                  recovery takes that would not fit otherwise
    rounding      share of the budget, at its end, in which matrices that are stored as int4
                  compute with the values that are packed in the end (`recovery.rounding`); 0 is
                  never
    rounding_lr   the step at that share's beginning, which `near` makes smaller too; it falls as
                  a cosine again, and that before falls to its end where rounding begins
    refit         steps between two fits of int4's scales then; 0 keeps the first ones
    seed          of the order of the text
    """

    lr: float = 1.5e-5
    near: float = 0.1
    warmup: float = 0.05
    final: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    clip: float = 1.0
    sequences: int = 4
    length: int = 512
    temperature: float = 1.0
    disagreement: float = 1.0
    next_token: float = 0.0
    top_k: int = 32
    hidden: float = 0.0
    ends: bool = True
    vectors: bool = False
    dense: bool = False
    moments: Moments = "bfloat16"
    rounding: float = 0.0
    rounding_lr: float = 1.5e-5
    refit: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises UsageError for values that cannot be learned with."""
        if self.sequences < 1 or self.length < 2 or self.top_k < 0:
            raise UsageError("a recipe needs 1 sequence, 2 tokens a sequence and top_k 0 up")
        positive = (
            self.lr, self.near, self.rounding_lr, self.clip, self.temperature, self.disagreement,
            self.eps,
        )  # fmt: skip
        if not all(math.isfinite(value) and value > 0 for value in positive):
            raise UsageError(
                "lr, near, rounding_lr, clip, temperature, disagreement and eps of a recipe are "
                "above 0"
            )
        if not all(0 <= share <= 1 for share in (self.warmup, self.final, self.rounding)):
            raise UsageError("warmup, final and rounding of a recipe are shares, 0 to 1")
        if not (math.isfinite(self.hidden) and self.hidden >= 0):
            raise UsageError("hidden of a recipe is a weight, 0 up")
        if self.refit < 0:
            raise UsageError("refit of a recipe is a number of steps, 0 up")
        if not 0 <= self.next_token < 1:
            raise UsageError("next_token of a recipe is a share, from 0 to below 1")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError("betas of a recipe are from 0 to below 1")

    @property
    def tokens(self) -> int:
        """What one step learns from."""
        return self.sequences * self.length

    def identity(self) -> dict[str, Any]:
        """JSON-ready. Without next tokens, hidden states, ends or rounding it is what it was
        before there were such terms."""
        fields = asdict(self) | {"betas": list(self.betas)}
        terms = {
            "next_token": ("next_token",),
            "hidden": ("hidden",),
            "ends": ("ends",),
            "rounding": ("rounding", "rounding_lr", "refit"),
        }
        for term, names in terms.items():
            if not fields[term]:
                for name in names:
                    del fields[name]
        return fields

    def calm(self, kl: float) -> float:
        """What the step size is multiplied by for a student that begins at a held-out KL."""
        return 1.0 if self.next_token else min(1.0, kl / self.near)

    def rate(self, done: float, *, rounded: bool = False) -> float:
        """The step size when a share `done` (0 to 1) of the budget is used up; rounded: by now
        values are."""
        until = 1 - self.rounding
        if rounded:
            return self.rounding_lr * self._fallen(done, until, 1.0)
        if done < self.warmup:
            return self.lr * done / self.warmup
        return self.lr * self._fallen(done, self.warmup, until)

    def _fallen(self, done: float, begin: float, end: float) -> float:
        """From 1 to `final`, between two shares of the budget."""
        along = min((done - begin) / (end - begin), 1.0) if begin < end else 1.0
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * along))
