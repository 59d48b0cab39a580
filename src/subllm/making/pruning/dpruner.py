"""D-Pruner: what the domain's loss needs, with what all text needs as a regulariser (Zhang et
al. 2024, "Pruning as a Domain-specific LLM Extractor", section 3). Its code is not public.

Removing a weight w changes a loss L by |g w - 1/2 h w^2|, g its gradient and h the diagonal of
the Hessian, for which the empirical Fisher stands: the mean of squared gradients of single
samples. Of general text this is the general importance G of w. The domain's loss is then
regularised by lambda * sum G (w' - w)^2, w' the weight after a step of training, so that what
is important in general weighs more. After one step (w' - w = -alpha g) the regulariser's
gradient is 2 lambda alpha^2 G g h, and the score of w, with g and h of the domain's text, is

    S = |g' w - 1/2 h' w^2|,   g' = g + 2 lambda alpha^2 G g h = g (1 + c G h),
                               h' = h (1 + c G h)^2

The constants of the paper depend on the loss's unit and the learning rate. Here c G h is
`general` * G / mean(G) * h / mean(h) with means over the matrix: the same formula with a c for
each matrix. The paper prunes without structure; the scores serve every pattern. Weights stay
as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.pruning.choose import choose
from subllm.making.pruning.method import InputStatistics, Need, Pruned
from subllm.making.pruning.parameter import Parameter


class DPruner:
    name = "dpruner"
    needs = frozenset({Need.GRADIENTS, Need.GENERAL_GRADIENTS})
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("general", 1.0, 0.0, 1000.0, "weight of the importance for general text"),
    )

    def __init__(self, general: float = 1.0) -> None:
        self._general = general

    @property
    def params(self) -> Mapping[str, Any]:
        return {"general": self._general}

    def prune(self, weight: torch.Tensor, statistics: InputStatistics, pattern: Pattern) -> Pruned:
        """See `Method.prune`; the statistics are those of this matrix."""
        domain, general = statistics[Need.GRADIENTS], statistics[Need.GENERAL_GRADIENTS]
        return Pruned(choose(scores(weight, domain, general, self._general), pattern))


def importance(weight: torch.Tensor, gradient: torch.Tensor, fisher: torch.Tensor) -> torch.Tensor:
    """|g w - 1/2 h w^2|, all of one shape."""
    return (gradient * weight - 0.5 * fisher * weight.square()).abs_()


def scores(
    weight: torch.Tensor, domain: torch.Tensor, general: torch.Tensor, strength: float
) -> torch.Tensor:
    """Of weight [out, in]; domain and general as `Need.GRADIENTS`: how many sequences they are
    sums over does not change the order. float64 for a float64 weight, else float32."""
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    of = weight.to(dtype)
    gradient, fisher = domain.to(of.device, dtype)
    least = torch.finfo(dtype).tiny
    of_general = importance(of, *general.to(of.device, dtype))
    factor = of_general.div_(of_general.mean().clamp_min(least))
    factor = factor.mul_(fisher / fisher.mean().clamp_min(least)).mul_(strength).add_(1)
    return importance(of, gradient * factor, fisher * factor.square())
