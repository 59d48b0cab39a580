"""AdamW on kept values against torch's own on the whole tensor with a masked gradient."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from subllm.errors import ExtractionError, UsageError
from subllm.making.recovery.masters import AdamW, DivergedError, Learned
from subllm.making.recovery.places import Places
from subllm.making.recovery.recipe import Recipe

SHAPE = (48, 32)


def learned(recipe: Recipe, mask, *, across=False, dtype=torch.float32, seed=0) -> Learned:
    start = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)
    return Learned("w", start, mask, AdamW(recipe), torch.device("cpu"), dtype, across=across)


def half(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random(SHAPE) < 0.5


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize(
    "mask", [None, half(), np.eye(*SHAPE, dtype=bool)], ids=["all", "half", "few"]
)
@pytest.mark.parametrize("clip", [0.05, 100.0])
def test_steps_equal_torch_s(across, mask, clip) -> None:
    recipe = Recipe(lr=0.01, clip=clip, moments="float32", betas=(0.8, 0.9), eps=1e-6)
    ours = learned(recipe, mask, across=across)
    plain = torch.nn.Parameter(torch.from_numpy(ours.read()))
    torchs = torch.optim.AdamW([plain], lr=0.01, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.0)
    kept = torch.ones(SHAPE) if mask is None else torch.from_numpy(mask).float()
    generator = torch.Generator().manual_seed(3)
    for step in range(6):
        gradient = torch.randn(SHAPE, generator=generator)
        plain.grad = gradient * kept
        torch.nn.utils.clip_grad_norm_([plain], clip)
        for group in torchs.param_groups:
            group["lr"] = 0.01 / (1 + step)
        torchs.step()
        ours._adamw.begin(0.01 / (1 + step))
        ours.step(gradient.T if across else gradient)
    torch.testing.assert_close(torch.from_numpy(ours.read()), plain.detach(), rtol=1e-5, atol=1e-6)
    weight = ours.weight.T if across else ours.weight
    assert np.array_equal(weight.numpy(), ours.read())


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize(
    "mask", [None, half(), np.eye(*SHAPE, dtype=bool)], ids=["all", "half", "few"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("moments", ["float32", "bfloat16"])
def test_the_core_s_step_is_torch_s(across, mask, dtype, moments) -> None:
    """Up to rounding: what is rounded to bfloat16 may fall to the neighbour, in few places."""
    core, torchs = (
        learned(Recipe(moments=moments), mask, across=across, dtype=dtype) for _ in range(2)
    )
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        gradient = torch.randn(core.weight.shape, generator=generator).to(dtype)
        for each in (core, torchs):
            each._adamw.begin(1e-2)
        assert core._step_fused(gradient) == pytest.approx(torchs._step_torch(gradient), rel=1e-6)
        theirs = torchs.states()
        for name, value in core.states().items():
            other = theirs[name]
            if value.dtype == torch.float32:
                torch.testing.assert_close(value, other, rtol=1e-6, atol=1e-7)
            else:
                apart = (value.view(torch.int16).int() - other.view(torch.int16).int()).abs()
                assert apart.max() <= 1
                assert (apart > 0).float().mean() < 0.01
            other.copy_(value)
        torchs.restore(theirs)
        assert torch.equal(core.weight, torchs.weight)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_masters_are_float32_to_the_last_bit(across, dtype) -> None:
    random = np.random.default_rng(4)
    start = random.normal(size=SHAPE) * 10.0 ** random.integers(-40, 30, SHAPE)
    start = start.astype(np.float32)
    start[0, :8] = [0.0, -0.0, 1 + 2**-8, -1 - 2**-8, 1 + 3 * 2**-8, 1e-45, -1e-45, 2**-130]
    for mask in (None, half()):
        ours = Learned(
            "w", start, mask, AdamW(Recipe()), torch.device("cpu"), dtype, across=across
        )  # fmt: skip
        kept = np.ones(SHAPE, bool) if mask is None else mask
        assert np.array_equal(ours.read().view(np.int32), np.where(kept, start, 0).view(np.int32))
        weight = (ours.weight.T if across else ours.weight).float().numpy()
        nearest = torch.from_numpy(start).to(dtype).float().numpy()
        error = np.abs(weight.astype(np.float64) - start)[kept]
        assert (error <= np.abs(nearest.astype(np.float64) - start)[kept]).all()


def test_a_double_precision_weight_learns_too() -> None:
    ours = learned(Recipe(), half(), dtype=torch.float64)
    before = ours.read()
    ours._adamw.begin(1e-2)
    ours.step(torch.ones(SHAPE, dtype=torch.float64))
    np.testing.assert_allclose((before - ours.read())[half()], 1e-2, rtol=1e-3)


def test_what_is_pruned_has_no_state_and_stays_zero() -> None:
    mask = half()
    ours = learned(Recipe(lr=0.1), mask, dtype=torch.bfloat16)
    assert len(ours.values()) == len(ours.moments.first) == mask.sum()
    for _ in range(5):
        ours._adamw.begin(0.1)
        ours.step(torch.randn(SHAPE))
    assert not ours.read()[~mask].any()
    assert not ours.weight.float().numpy()[~mask].any()
    ours.check()
    row, column = np.argwhere(~mask)[0]
    ours.weight[row, column] = 1e-3
    with pytest.raises(ExtractionError, match="w has values where its mask has none"):
        ours.check()


def test_masters_keep_steps_that_bfloat16_would_lose() -> None:
    recipe = Recipe(lr=1e-5, moments="bfloat16")
    ours = learned(recipe, half(), dtype=torch.bfloat16)
    before = ours.read()
    for _ in range(50):
        ours._adamw.begin(1e-5)
        ours.step(torch.ones(SHAPE))
    moved = (before - ours.read())[half()]
    np.testing.assert_allclose(moved, 50 * 1e-5, rtol=0.02)


def test_moments_in_bfloat16_go_nearly_the_way_of_float32() -> None:
    recipe = Recipe(lr=1e-2, moments="float32")
    ways = []
    for moments in ("float32", "bfloat16"):
        ours = learned(replace(recipe, moments=moments), half())
        start = ours.read()
        generator = torch.Generator().manual_seed(3)
        for _ in range(200):
            ours._adamw.begin(1e-2)
            ours.step(torch.randn(SHAPE, generator=generator) + 0.3)
        ways.append(ours.read() - start)
    wide, narrow = ways
    assert np.linalg.norm(wide - narrow) < 0.01 * np.linalg.norm(wide)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("across", [False, True])
def test_moments_in_eight_bits_go_nearly_the_way_of_float32(across, dtype) -> None:
    pytest.importorskip("bitsandbytes")
    recipe = Recipe(lr=1e-3, clip=20.0)
    ways = []
    for moments in ("float32", "int8"):
        ours = learned(replace(recipe, moments=moments), half(), across=across, dtype=dtype)
        start = ours.read()
        generator = torch.Generator().manual_seed(3)
        for step in range(60):
            ours._adamw.begin(1e-3 / (1 + step / 30))
            ours.step(torch.randn(ours.weight.shape, generator=generator).to(dtype) + 0.3)
        ways.append(ours.read() - start)
        assert not ours.read()[~half()].any()
        ours.check()
        shown = ours.weight.T if across else ours.weight
        nearest = torch.from_numpy(ours.read()).to(dtype)
        torch.testing.assert_close(
            shown, nearest, rtol=2**-7 if dtype != torch.float32 else 0, atol=0
        )
    wide, narrow = ways
    assert np.linalg.norm(wide - narrow) < 0.03 * np.linalg.norm(wide)
    sizes = {name: state.element_size() for name, state in ours.states().items()}
    assert (sizes["first"], sizes["second"]) == (1, 1)


def test_pieces_of_eight_bit_moments_are_those_of_the_whole(monkeypatch) -> None:
    pytest.importorskip("bitsandbytes")
    from subllm.making.recovery import eight_bit

    found = []
    for piece in (1 << 16, 256):
        monkeypatch.setattr(eight_bit, "_PIECE", piece)
        ours = learned(Recipe(moments="int8"), half())
        for step in range(3):
            ours._adamw.begin(1e-3)
            ours.step(torch.full(SHAPE, 0.1 * (step + 1)))
        found.append(ours.states())
    one, other = found
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_eight_bits_without_bitsandbytes_say_what_to_install(monkeypatch) -> None:
    from subllm.making.recovery import eight_bit

    eight_bit._functions.cache_clear()
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    eight_bit._grids.cache_clear()
    with pytest.raises(UsageError, match=r"need bitsandbytes .*pip install 'subllm\[gpu\]'"):
        learned(Recipe(moments="int8"), half())
    eight_bit._functions.cache_clear()


def test_a_gradient_that_is_no_number_changes_nothing() -> None:
    ours = learned(Recipe(), half())
    before = ours.read()
    gradient = torch.zeros(SHAPE)
    gradient[tuple(np.argwhere(half())[3])] = torch.nan
    ours._adamw.begin(1e-3)
    with pytest.raises(DivergedError, match="gradient of w"):
        ours.step(gradient)
    assert np.array_equal(ours.read(), before)


@pytest.mark.parametrize("share", [0.5, 0.001, 0.0, 1.0])
def test_places_are_the_mask_s(share) -> None:
    mask = torch.from_numpy(np.random.default_rng(0).random(5000) < share)
    places = Places(mask, 5000, torch.device("cpu"))
    assert places.count == int(mask.sum())
    index = places.index()
    assert (index is None) == (share == 1.0)
    if index is not None:
        assert torch.equal(index, mask.nonzero().flatten())
