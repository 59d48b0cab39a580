"""What a recovery is given, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from subllm.errors import CalibrationError, ExtractionError, UsageError
from subllm.kernels.sparsity.packing import PackedTensor
from subllm.making.recovery.recipe import Recipe
from subllm.making.recovery.rows import RecoveryText
from subllm.models.weights.reader import WeightReader


@dataclass(frozen=True)
class Task:
    """One recovery.

    reader   the dense base: the teacher, and all that does not learn
    base     its digest: what the teacher's answers on disk are kept under
    teacher  another dense model with the same token ids, which teaches what is `filled` in the
             texts instead; `taught_by` is its digest then. It tells top_k outcomes, states the base
    masks    full tensor name ("model.layers.3.mlp.up_proj.weight") -> bool [out, in], True
             where a weight is kept. Each is asked for once, so a mapping may unpack them
             when asked. What is not named stays dense and as it is, unless the recipe says
             that it learns too
    start    full tensor name -> float32 weights to start from, the base's or those of a
             sub-model; what they hold where the mask is False is ignored. Also of vectors, with
             which the student computes whether or not they learn
    text     rows to learn from; heldout: other rows to judge by
    int4     full tensor name -> pattern of those with a mask that are stored as int4: what is
             rounded where the recipe says so
    """

    reader: WeightReader
    base: str
    masks: Mapping[str, npt.NDArray[np.bool_]]
    start: Callable[[str], npt.NDArray[np.float32]]
    text: RecoveryText
    heldout: RecoveryText
    recipe: Recipe
    int4: Mapping[str, str] = field(default_factory=dict)
    teacher: WeightReader | None = None
    taught_by: str = ""

    def check(self) -> None:
        """Raises ExtractionError for masks that the base has no matrices for, CalibrationError
        for text that does not suit the recipe, UsageError for terms that do not go together."""
        recipe, spec = self.recipe, self.reader.spec
        matrices = {
            f"{spec.block_prefix(layer)}{linear.name}.weight"
            for layer in range(spec.num_layers)
            for linear in spec.linears
        }
        if foreign := set(self.masks) - matrices:
            raise ExtractionError(f"no block has a matrix {min(foreign)}, which a mask is for")
        for text in (self.text, self.heldout):
            if text.length != recipe.length:
                raise CalibrationError(
                    f"rows of {text.length} tokens for a recipe that learns rows of {recipe.length}"
                )
        if self.teacher is not None and not recipe.top_k:
            raise UsageError("a teacher that is not the base tells top_k outcomes")
        if self.teacher is not None and (self.text.filled is None or not self.text.filled.any()):
            raise CalibrationError("the text has no holes to fill, which is what is taught")
        if recipe.rounding and not self.int4:
            raise UsageError("the recipe rounds to int4, which no matrix here is stored as")
        if self.text.rows < recipe.sequences:
            raise CalibrationError(
                f"{self.text.rows * recipe.length} tokens to learn from are less than one batch of "
                f"{recipe.tokens}; add text"
            )


class Weights(Protocol):
    """What was learned so far, exactly 0 where the mask is False; valid only during the
    call that it is given to."""

    def names(self) -> Iterable[str]:
        """Full names of the tensors that learn, vectors among them."""

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """The whole tensor, float32, owned by the caller."""

    def packed(self, name: str) -> PackedTensor | None:
        """What a tensor that learned under rounding is to be packed as; None for others, and
        while nothing is rounded."""


@dataclass(frozen=True)
class CurvePoint:
    """Where a recovery stood.

    tokens, seconds  learned from, and taken, since the recovery began (earlier runs too)
    loss             mean over what was learned from since the point before; None at the start
    heldout_kl       mean KL divergence in nats from the teacher's distribution, held-out text
    agreement        share of held-out tokens whose first choice is the teacher's
    heldout_nll      mean negative log-likelihood in nats of held-out text's next tokens, where
                     these have a share in what is learned
    rounded          whether values were rounded as they are packed: only such points are
                     comparable to one another
    """

    tokens: int
    seconds: float
    loss: float | None
    heldout_kl: float
    agreement: float
    heldout_nll: float | None = None
    rounded: bool = False

    @property
    def judged(self) -> float:
        """What is better the lower it is: `heldout_nll` where there is one."""
        return self.heldout_kl if self.heldout_nll is None else self.heldout_nll

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def best_of(curve: Sequence[CurvePoint]) -> CurvePoint:
    """See `Outcome.best`."""
    rounded = [point for point in curve if point.rounded]
    return min(rounded or curve, key=lambda point: point.judged)


Stopped = Literal["budget", "asked", "diverged"]


@dataclass(frozen=True)
class Outcome:
    """curve   all points so far, the start first (earlier runs' too)
    best      the one with the lowest `judged`, of those that are rounded where any is; the
              start's where nothing was better
    tokens, seconds  as the last point's
    stopped   "budget" used up, "asked" to stop, or "diverged": the loss was no number, and
              the last good state was gone back to
    """

    curve: tuple[CurvePoint, ...]
    best: CurvePoint
    tokens: int
    seconds: float
    stopped: Stopped
