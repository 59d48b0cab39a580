"""What lies between a block's products, in the compiled core where that has it.

RMSNorm and the gated activation of an MLP are a few operations for each value, but in torch a
dozen passes over the memory, and with selective checkpointing they run twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from subllm.making.recovery import fused

_PROBE = 64  # values that tell whether a module is what it looks like


class _Gated(torch.autograd.Function):
    """silu(gate) * up."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return fused.gated(gate, up)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        return fused.gated_gradients(gate, up, gradient)


class _Normed(torch.autograd.Function):
    """RMSNorm by a weight that does not learn."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return fused.normed(x, weight, eps)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, weight = ctx.saved_tensors
        return fused.normed(x, weight, ctx.eps, gradient), None, None


gated: Any = _Gated.apply  # typed in some versions of torch only
normed: Any = _Normed.apply


class _GatedMlp(nn.Module):
    """In place of a block's MLP."""

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down_proj(gated(self.gate_proj(x), self.up_proj(x)))
        return out


class _Norm(nn.Module):
    """In place of an RMSNorm."""

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        super().__init__()
        self.weight, self._eps = weight, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = normed(x.contiguous(), self.weight, self._eps)
        return out


def fuse(block: nn.Module, *, norms: bool) -> None:
    """Put the core's operations in place of a loaded block's own, as far as they are the same;
    norms only where asked for: their weights do not learn then."""
    first = next(block.parameters(), None)
    if first is None or first.device.type != "cpu" or first.dtype not in fused.TYPES:
        return
    for name, module in list(block.named_modules()):
        owner, _, last = name.rpartition(".")
        if _is_gated_mlp(module):
            setattr(block.get_submodule(owner), last, _GatedMlp(module))
        elif norms and _is_rms_norm(module):
            norm: Any = module
            setattr(block.get_submodule(owner), last, _Norm(norm.weight, norm.variance_epsilon))


def _is_gated_mlp(module: Any) -> bool:
    wanted = {"gate_proj", "up_proj", "down_proj", "act_fn"}
    if {name for name, _ in module.named_children()} != wanted:
        return False
    probe = torch.linspace(-8, 8, _PROBE)
    return torch.equal(module.act_fn(probe), nn.functional.silu(probe))


def _is_rms_norm(module: Any) -> bool:
    """By what it makes of a few numbers: there are such as add 1 to their weights."""
    if [name for name, _ in module.named_parameters()] != ["weight"] or module.weight.ndim != 1:
        return False
    eps = getattr(module, "variance_epsilon", None)
    if eps is None:
        return False
    weight = module.weight.detach()
    probe = torch.linspace(-3, 2, len(weight)).to(weight.dtype)[None]
    wide = probe.double()
    exact = wide * torch.rsqrt(wide.square().mean() + eps) * weight.double()
    apart = (module(probe).double() - exact).abs().max()
    return bool(apart <= 2 * torch.finfo(weight.dtype).eps * exact.abs().max())
