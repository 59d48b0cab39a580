"""The core's norm and gated activation against torch's, and where they stand in for those."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from subllm.kernels import native
from subllm.making.recovery import fused
from subllm.making.recovery.between import _GatedMlp, _Norm, fuse, gated, normed

core = native.core()
ISAS = core.adamw_isas()
EPS = 1e-6


def exact_gated(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.silu(gate) * up


def exact_normed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * weight


def values(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return (3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def close(found: torch.Tensor, exact: torch.Tensor) -> None:
    """As near as the type allows, and in float32 an exponential of the core."""
    eps = torch.finfo(found.dtype).eps * (1 if found.dtype == torch.bfloat16 else 8)
    scale = exact.abs().max()
    assert found.double().isfinite().all()
    torch.testing.assert_close(found.double(), exact, rtol=2 * eps, atol=float(4 * eps * scale) / 8)


@pytest.mark.parametrize("dtype", fused.TYPES)
@pytest.mark.parametrize("size", [1, 15, 1024, 1031, 70_001])
def test_a_gated_activation_and_its_gradients(dtype, size) -> None:
    gate, up = (values(size, dtype=dtype, seed=i).requires_grad_() for i in range(2))
    back = values(size, dtype=dtype, seed=2)
    wide = [each.detach().double().requires_grad_() for each in (gate, up)]
    close(gated(gate, up), exact_gated(*wide).detach())
    found = torch.autograd.grad(gated(gate, up), (gate, up), back)
    for one, other in zip(
        found, torch.autograd.grad(exact_gated(*wide), wide, back.double()), strict=True
    ):
        close(one, other)


@pytest.mark.parametrize("dtype", fused.TYPES)
@pytest.mark.parametrize("columns", [15, 64, 896, 1031, 2048])
def test_a_norm_and_its_gradient(dtype, columns) -> None:
    x, back = (values(2, 37, columns, dtype=dtype, seed=i) for i in range(2))
    weight = values(columns, dtype=dtype, seed=2)
    x.requires_grad_()
    wide = x.detach().double().requires_grad_()
    close(normed(x, weight, EPS), exact_normed(wide, weight.double()).detach())
    (found,) = torch.autograd.grad(normed(x, weight, EPS), x, back)
    (exact,) = torch.autograd.grad(exact_normed(wide, weight.double()), wide, back.double())
    close(found, exact)


@pytest.mark.parametrize("gate", [-1e4, -90.0, -20.0, 0.0, 20.0, 90.0, 1e4])
def test_large_gates_are_numbers(gate) -> None:
    x = torch.full((40,), gate, requires_grad=True)
    up = torch.full((40,), 2.0, requires_grad=True)
    wide = torch.tensor(gate, dtype=torch.float64, requires_grad=True)
    out = gated(x, up)
    exact = exact_gated(wide, torch.tensor(2.0, dtype=torch.float64))
    torch.testing.assert_close(out[0].double(), exact.detach(), rtol=1e-5, atol=1e-6)
    (found,), (slope,) = torch.autograd.grad(out.sum(), x), torch.autograd.grad(exact, wide)
    torch.testing.assert_close(found[0].double(), slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["f4", "u2"])
def test_instruction_sets_and_threads_agree(isa, kind) -> None:
    def run(threads: int, name: str) -> list[np.ndarray]:
        x = values(70, 900, dtype=torch.float32)
        gate, up, back = (
            (each if kind == "f4" else each.bfloat16().view(torch.int16)).numpy() for each in
            (x, x.flip(0).contiguous(), x.flip(1).contiguous())
        )  # fmt: skip
        gate, up, back = (each if kind == "f4" else each.view("u2") for each in (gate, up, back))
        outs = [np.empty_like(gate) for _ in range(5)]
        pool = core.Pool(threads)
        core.gated(pool, gate, up, None, outs[0], None, isa=name)
        core.gated(pool, gate, up, back, outs[1], outs[2], isa=name)
        core.normed(pool, gate, up[0].copy(), EPS, None, outs[3], isa=name)
        core.normed(pool, gate, up[0].copy(), EPS, back, outs[4], isa=name)
        return outs

    for one, two, base in zip(run(1, isa), run(2, isa), run(1, "base"), strict=True):
        assert np.array_equal(one, two)
        if kind == "f4":
            np.testing.assert_allclose(one, base, rtol=1e-4, atol=1e-4 * np.abs(base).max())
        else:
            assert np.abs(one.astype(int) - base.astype(int)).max() <= 1


def test_what_does_not_fit_is_refused() -> None:
    pool, x = core.Pool(1), np.zeros((4, 6), np.float32)
    with pytest.raises(ValueError, match="up has"):
        core.gated(pool, x, x[:3], None, x, None)
    with pytest.raises(ValueError, match="belong together"):
        core.gated(pool, x, x, x, x, None)
    with pytest.raises(ValueError, match="differ in type"):
        core.gated(pool, x, x, None, x.astype(np.uint16), None)
    with pytest.raises(ValueError, match="x has"):
        core.normed(pool, x, np.zeros(5, np.float32), EPS, None, x)
    with pytest.raises(ValueError, match="neither float32 nor bfloat16"):
        core.normed(pool, x.astype(np.float64), x, EPS, None, x)


@pytest.mark.parametrize(
    ("family", "mlps", "norms"), [("Qwen2", 1, 2), ("Llama", 1, 2), ("Gemma", 0, 0)]
)
def test_they_stand_in_for_what_is_the_same_only(family, mlps, norms) -> None:
    config = getattr(transformers, f"{family}Config")(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, vocab_size=64, head_dim=16,
    )  # fmt: skip
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval().requires_grad_(False)
    ids = torch.arange(12)[None]
    before = model(ids).logits
    block = model.model.layers[0]
    fuse(block, norms=True)
    kinds = [type(module) for module in block.modules()]
    assert (kinds.count(_GatedMlp), kinds.count(_Norm)) == (mlps, norms)
    torch.testing.assert_close(model(ids).logits, before, rtol=1e-5, atol=1e-5)
