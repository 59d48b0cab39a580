"""int4 in the loop: what is computed with is what will be packed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from subllm.errors import UsageError
from subllm.kernels.sparsity.packing import PackedTensor, pack, unpack
from subllm.making.pruning.feedback import round_with_feedback, slabs_of
from subllm.making.recovery.distil import Recovery
from subllm.making.recovery.masters import AdamW, Learned
from subllm.making.recovery.recipe import Recipe
from subllm.making.recovery.rounding import Products

from .conftest import LENGTH, Notes
from .test_distil import BATCH, after, everything, same, steps

SHAPE = (40, 96)


def sixteenths(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A mask of 8:16."""
    order = np.random.default_rng(seed).random((shape[0], shape[1] // 16, 16)).argsort(-1)
    return (order < 8).reshape(shape)


def all_but_the_least(weights: np.ndarray) -> np.ndarray:
    """A mask of 15:16."""
    groups = np.abs(weights).reshape(len(weights), -1, 16)
    mask = np.ones(groups.shape, np.bool_)
    np.put_along_axis(mask, groups.argmin(-1)[..., None], False, -1)
    return mask.reshape(weights.shape)


def learned(across: bool, dtype: torch.dtype = torch.float32) -> Learned:
    start = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    recipe = Recipe(moments="float32", clip=1e9)
    return Learned(
        "w", start, sixteenths(SHAPE), AdamW(recipe), torch.device("cpu"), dtype, across=across
    )


def products(columns: int = SHAPE[1]) -> Products:
    found = Products(columns, torch.device("cpu"))
    mixed = np.random.default_rng(1).normal(size=(columns, columns)).astype(np.float32)
    inputs = np.random.default_rng(2).normal(size=(200, columns)).astype(np.float32) @ mixed
    found.add(torch.from_numpy(inputs).view(10, 20, columns))
    np.testing.assert_allclose(
        found.sums[0, :columns, :columns], inputs.T @ inputs, rtol=1e-3, atol=1e-1
    )
    return found


def weight_of(tensor: Learned) -> np.ndarray:
    return (tensor.weight.T if tensor.across else tensor.weight).float().numpy()


def rounded_by_hand(packed: PackedTensor, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Each kept value on the grid of the scale and subscale that the layout has for it."""
    result = np.zeros_like(values)
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    for row, column in np.argwhere(mask):
        tile, lane = divmod(int(row), 8)
        scale = np.float32(packed.scales[tile, column // 256, 0, lane])
        part = packed.subscales[tile, column // 128, 0, order.index(lane), column % 128 // 32]
        step = scale * np.float32(part)
        if step:
            code = np.clip(np.rint(values[row, column] / step), -8, 7)
            result[row, column] = step * np.float32(code)
    return result


@pytest.mark.parametrize("across", [False, True])
def test_it_begins_as_the_packer_would_end(across: bool) -> None:
    ours, mask = learned(across), sixteenths(SHAPE)
    before, inputs = ours.read(), products()
    plain = pack(before, mask, "8:16", "int4", importance=inputs.importance())
    expected = round_with_feedback(plain, before, mask, slabs_of(inputs.sums, SHAPE[1]))
    ours.begin_rounding("8:16", inputs)
    packed = ours.packed()
    assert packed is not None
    for name in ("data", "scales", "subscales", "mask"):
        assert np.array_equal(getattr(packed, name), getattr(expected, name)), name
    assert np.array_equal(weight_of(ours), unpack(expected))
    assert np.array_equal(weight_of(ours), rounded_by_hand(packed, ours.read(), mask))
    moved = np.abs(ours.read() - before)
    assert 0 < moved[mask].mean() < 0.5 and not ours.read()[~mask].any()


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_pass_straight_through_to_the_masters(across: bool, dtype) -> None:
    ours, plain, mask = learned(across, dtype), learned(across, dtype), sixteenths(SHAPE)
    ours.begin_rounding("8:16", products())
    plain.start(ours.read())
    generator = torch.Generator().manual_seed(3)
    codes = set()
    for _ in range(5):
        gradient = torch.randn(SHAPE, generator=generator)
        for each in (ours, plain):
            each._adamw.begin(3e-2)
            each.step(gradient.T if across else gradient)
        np.testing.assert_array_equal(ours.read(), plain.read())
        packed = ours.packed()
        codes.add(packed.data.tobytes())
        expected = rounded_by_hand(packed, ours.read(), mask)
        assert np.array_equal(unpack(packed), expected)
        assert np.array_equal(weight_of(ours), torch.from_numpy(expected).to(dtype).float().numpy())
        ours.check()
    assert len(codes) == 5, "codes change while scales stay"
    before = ours.packed().scales
    ours.fit()
    assert not np.array_equal(ours.packed().scales, before)
    assert np.array_equal(unpack(ours.packed()), rounded_by_hand(ours.packed(), ours.read(), mask))
    ours.end_rounding()
    assert ours.packed() is None
    assert np.array_equal(weight_of(ours), weight_of(plain))


@pytest.fixture
def coarse(task):
    """A task whose matrices are all stored as int4, which costs more than what is pruned."""

    def make(**recipe: object):
        given = task(rows=40, **({"top_k": 16, "warmup": 0.0, "lr": 1e-4, "near": 1e-9} | recipe))
        masks = {name: all_but_the_least(given.reader.read(name)) for name in given.masks}
        return replace(given, masks=masks, int4=dict.fromkeys(masks, "15:16"))

    return make


def test_what_is_packed_comes_nearer_than_by_rounding_in_the_end(coarse, tmp_path) -> None:
    """The same text, the same number of steps, both packed with feedback to begin with."""
    late = coarse()
    plain = Recovery(late, tmp_path / "late", compute="float32")
    plain.run(steps(64))
    plain._student.begin_rounding(late.int4, late.text, 40)
    rounded_late, _, _ = plain._heldout()

    notes, packed = Notes(), {}

    def on_better(point, weights) -> None:
        packed.update({name: weights.packed(name) for name in weights.names()})
        assert point.rounded == (packed[min(packed)] is not None)

    given = coarse(rounding=0.5, rounding_lr=1e-4)
    recovery = Recovery(given, tmp_path / "loop", compute="float32")
    outcome = recovery.run(steps(64), notes, on_better)
    assert any("rounded to int4" in note for note in notes.notes)
    assert outcome.best.rounded and outcome.best.tokens > 32 * BATCH
    assert [point.rounded for point in outcome.curve] == sorted(p.rounded for p in outcome.curve)
    first = next(point for point in outcome.curve if point.rounded)
    assert first.tokens == 32 * BATCH
    assert outcome.best.heldout_kl < 0.95 * rounded_late

    # What was handed out is the best point's model, mask and all.
    for name, tensor in packed.items():
        mask = given.masks[name]
        assert not unpack(tensor)[~mask].any()
        recovery._student.masters.tensors[name].end_rounding()
        recovery._student.masters.tensors[name].start(unpack(tensor))
    assert recovery._heldout()[0] == pytest.approx(outcome.best.heldout_kl, rel=1e-5)


def test_a_stop_amid_rounding_goes_on_bit_for_bit(coarse, tmp_path) -> None:
    recipe = {"rounding": 0.5, "rounding_lr": 1e-4, "refit": 4}
    whole = Recovery(coarse(**recipe), tmp_path / "whole", compute="float32")
    outcome = whole.run(steps(20))
    parts = tmp_path / "parts"
    Recovery(coarse(**recipe), parts, compute="float32").run(steps(20), **after(15))
    rest = Recovery(coarse(**recipe), parts, compute="float32")
    resumed = rest.run(steps(20))
    assert resumed.curve[-1].heldout_kl == outcome.curve[-1].heldout_kl
    assert resumed.curve[-1].rounded
    assert same(everything(rest), everything(whole))

    # Another budget begins with free values again; what was rounded stays the best until then.
    again = Recovery(coarse(**recipe), parts, compute="float32")
    better = []
    again.run(
        steps(40), on_better=lambda point, _: better.append(point.rounded),
        stopped=lambda: again._standing.step >= 30,
    )  # fmt: skip
    assert again._standing.step == 30 and not again._standing.rounding
    assert again.weights.packed(min(again.weights.names())) is None
    assert not any(better)
    assert again._standing.curve[-1].tokens == 30 * LENGTH * 3


def test_what_cannot_be_rounded_is_told(task, tmp_path) -> None:
    with pytest.raises(UsageError, match="rounds to int4, which no matrix"):
        Recovery(task(rounding=0.2), tmp_path, compute="float32")
