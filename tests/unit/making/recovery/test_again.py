"""What is made again in backward: the same gradients, and no more work than was asked for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from subllm.making.recovery.again import Kept, again

TOKENS, HIDDEN, INNER, HEADS = 12, 16, 40, 4


class Block(torch.nn.Module):
    """Attention and a gated MLP, with what a block of a model does between their products."""

    def __init__(self, dtype: torch.dtype, *, post_norm: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def matrix(rows: int, columns: int) -> torch.nn.Parameter:
            values = torch.randn(rows, columns, generator=generator) / rows**0.5
            return torch.nn.Parameter(values.to(dtype))

        self.qkv = torch.nn.ParameterList(matrix(HIDDEN, HIDDEN) for _ in range(3))
        self.o, self.down = matrix(HIDDEN, HIDDEN), matrix(INNER, HIDDEN)
        self.gate, self.up = matrix(HIDDEN, INNER), matrix(HIDDEN, INNER)
        self.post_norm = post_norm

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        x = norm(hidden)
        q, k, v = ((x @ w).view(1, TOKENS, HEADS, -1).transpose(1, 2) for w in self.qkv)
        seen = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        hidden = hidden + seen.transpose(1, 2).reshape(1, TOKENS, HIDDEN) @ self.o
        x = norm(hidden)
        out = (torch.nn.functional.silu(x @ self.gate) * (x @ self.up)) @ self.down
        return hidden + (norm(out) if self.post_norm else out)


class Counted(TorchDispatchMode):
    """How often operators run."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


def norm(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def inputs(dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, TOKENS, HIDDEN, generator=generator).to(dtype).requires_grad_()


def gradients(block: Block, kept: Kept | None, counted: Counted | None = None) -> list:
    x = inputs(block.o.dtype)
    added = not block.post_norm
    out = block(x) if kept is None else again(block, x, kept, last_is_added=added)
    wanted = (out * torch.linspace(-1, 1, HIDDEN, dtype=out.dtype)).sum()
    if counted is None:
        return list(torch.autograd.grad(wanted, [x, *block.parameters()]))
    with counted:
        return list(torch.autograd.grad(wanted, [x, *block.parameters()]))


@pytest.mark.parametrize("kept", Kept)
@pytest.mark.parametrize("post_norm", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gradients_are_those_of_a_plain_backward_pass(kept, post_norm, dtype) -> None:
    block = Block(dtype, post_norm=post_norm)
    for found, plain in zip(gradients(block, kept), gradients(block, None), strict=True):
        assert torch.equal(found, plain)


@pytest.mark.parametrize(
    ("kept", "products", "attention"),  # the last product is an input of nothing
    [(Kept.PRODUCTS, 0, 0), (Kept.NARROW, 2, 0), (Kept.INPUT, 6, 1)],
)
def test_what_is_dear_runs_once(kept, products, attention) -> None:
    block = Block(torch.float32)
    plain, counted = Counted(), Counted()
    gradients(block, None, plain)
    gradients(block, kept, counted)
    more = counted.calls - plain.calls
    assert more["aten.mm.default"] == products
    forward = {name: n for name, n in more.items() if "attention" in name}
    assert sum(forward.values()) == attention
    assert more["aten.silu.default"] == 1, "what is cheap is made again"
