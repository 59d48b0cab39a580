"""Sensitivity against whole models with one group pruned, and what is made of it."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oracles.plain_wanda import drop_mask

from subllm.engine.bandwidth import weight_bytes_per_token
from subllm.errors import UsageError
from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.extraction.blocks.torch_blocks import TorchBlocks
from subllm.making.extraction.dense import DenseForm, add_dense
from subllm.making.extraction.extract import extract
from subllm.making.extraction.prepare import ExtractOptions, open_base
from subllm.making.extraction.sensitivity.allocate import LEVELS, Allocator
from subllm.making.extraction.sensitivity.divergence import Divergence, divergences
from subllm.making.extraction.sensitivity.goal import laid_out, vectors_of
from subllm.making.extraction.sensitivity.known import known
from subllm.making.extraction.sensitivity.measure import sensitivity
from subllm.making.extraction.sensitivity.record import (
    Group,
    Sensitivity,
    from_json,
    groups_of,
    names_of,
    to_json,
)
from subllm.making.extraction.sensitivity.sweep import Ground, Sweep
from subllm.making.pruning.allocation import Allocation
from subllm.making.pruning.registry import get_method
from subllm.models.arch.spec import ArchSpec
from subllm.models.catalog.loader import load_catalog
from subllm.models.store.collect import gc, remove
from subllm.models.store.model_files import open_model
from subllm.progress import NullProgress

from .conftest import BASE, prepared_for, tokens_for

ALONE = tuple(map(Pattern.parse, ("8:16", "12:16")))
WHOLE = tuple(map(Pattern.parse, ("6:16", "8:16", "12:16")))
KEY = {"made": "up"}
CPU = torch.device("cpu")


def ground_on(store, samples: int = 8, measured: int = 4) -> Ground:
    blocks = TorchBlocks(open_base(store, BASE)[2], CPU, torch.float64)
    return Ground(blocks, get_method("wanda"), ALONE, WHOLE, tokens_for(samples, 24), measured)


def expected(
    model: torch.nn.Module, tokens: np.ndarray, measured: int, names: set[str], kept: int
) -> tuple[float, float]:
    """KL and agreement at every second position, by whole forwards in float64."""
    model = copy.deepcopy(model).double()
    ids = torch.from_numpy(tokens.astype(np.int64))
    sums: dict[str, torch.Tensor] = {}

    def see(name: str):  # type: ignore[no-untyped-def]
        def hook(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
            sums[name] = inputs[0].reshape(-1, inputs[0].shape[-1]).square().sum(0)

        return hook

    modules = {name: model.get_submodule(name.removesuffix(".weight")) for name in names}
    handles = [module.register_forward_pre_hook(see(name)) for name, module in modules.items()]
    with torch.no_grad():
        model(ids)
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        before = model(ids[:measured]).logits.log_softmax(-1)
    return _pruned(model, modules, sums, ids[:measured], before, kept)


def _pruned(model, modules, sums, ids, before, kept):  # type: ignore[no-untyped-def]
    for name, module in modules.items():
        scores = module.weight.data.abs() * sums[name].sqrt()
        module.weight.data[drop_mask(scores, None, kept, 16)] = 0
    with torch.no_grad():
        after = model(ids).logits.log_softmax(-1)
    kl = (before.exp() * (before - after)).sum(-1).flatten()[1::2]
    same = (before.argmax(-1) == after.argmax(-1)).double().flatten()[1::2]
    return float(kl.mean()), float(same.mean())


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "starcoder2"])
def test_as_with_one_group_of_a_whole_model_pruned(store, add_base, tmp_path, family) -> None:
    model = add_base(family)
    ground = ground_on(store)
    found = Sweep(ground, tmp_path / "found.json", KEY).run(NullProgress())
    spec = ground.blocks.spec
    assert list(found.alone) == groups_of(spec)
    assert len(found.alone) == 3 * 5
    for group in (Group(0, ("q", "k")), Group(1, ("down",)), groups_of(spec)[-2], Group(2, ("o",))):
        for pattern in ALONE:
            names = set(names_of(spec, group))
            kl, same = expected(model, ground.tokens, 4, names, pattern.n)
            measured = found.alone[group][str(pattern)]
            assert measured.kl == pytest.approx(kl, rel=2e-3, abs=1e-7), (group, pattern)
            assert measured.agreement == pytest.approx(same, abs=0.03)


def test_whole_models_lose_more_the_less_they_keep(store, add_base, tmp_path) -> None:
    add_base("qwen2")
    found = Sweep(ground_on(store), tmp_path / "found.json", KEY).run(NullProgress())
    kls = [found.whole[str(pattern)].kl for pattern in WHOLE]
    assert kls == sorted(kls, reverse=True) and kls[-1] > 0
    assert max(of["8:16"].kl for of in found.alone.values()) < found.whole["8:16"].kl


def test_blocks_are_left_as_they_were(store, add_base, tmp_path, monkeypatch) -> None:
    """Also where layers are taken one by one: the result is the same."""
    add_base("qwen2")
    at_once = Sweep(ground_on(store), tmp_path / "one.json", KEY).run(NullProgress())
    monkeypatch.setattr("subllm.making.extraction.sensitivity.sweep._STATES_BYTES", 1)
    singly = Sweep(ground_on(store), tmp_path / "two.json", KEY).run(NullProgress())
    assert singly == at_once


class Counted(NullProgress):
    """Stops after so many forwards; `total` is what was announced."""

    def __init__(self, stop: int | None = None) -> None:
        self.done, self.stop, self.total, self.notes = 0.0, stop, 0.0, []

    def start(self, key, title, total, unit) -> None:  # type: ignore[no-untyped-def]
        self.total = total

    def advance(self, key: str, amount: float = 1) -> None:
        self.done += amount
        if self.stop is not None and self.done > self.stop:
            raise KeyboardInterrupt

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_a_stopped_measurement_goes_on(store, add_base, tmp_path, monkeypatch) -> None:
    add_base("qwen2")
    monkeypatch.setattr("subllm.making.extraction.sensitivity.sweep._STATES_BYTES", 1)
    whole = Counted()
    reference = Sweep(ground_on(store), tmp_path / "one.json", KEY).run(whole)
    assert whole.done == whole.total == 3 * 3 + 2 * 5 * (3 + 2 + 1)
    file = tmp_path / "two.json"
    with pytest.raises(KeyboardInterrupt):
        Sweep(ground_on(store), file, KEY).run(Counted(9 + 2 * 5 * 3 + 1))
    left = from_json(file.read_bytes(), KEY)
    assert left is not None and {group.layer for group in left.alone} == {0}
    again = Counted()
    assert Sweep(ground_on(store), file, KEY).run(again) == reference
    assert again.done == again.total == whole.total
    assert again.notes == ["resuming the measurement at layer 2 of 3"]


def test_divergence_is_exact_where_it_is_small(store, add_base) -> None:
    """bfloat16 products, yet far below what bfloat16 logits could tell apart."""
    model = add_base("qwen2")
    reader = open_base(store, BASE)[2]
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(40, 64, generator=generator)
    others = [dense + scale * torch.randn(40, 64, generator=generator) for scale in (1e-3, 0.3)]

    def log_p(states: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model.double().lm_head(model.model.norm(states.double())).log_softmax(-1)

    found = divergences(reader, dense, [*others, dense], CPU, torch.bfloat16)
    for other, measured in zip(others, found, strict=False):
        kl = (log_p(dense).exp() * (log_p(dense) - log_p(other))).sum(-1).mean()
        assert measured.kl == pytest.approx(float(kl), rel=0.01)
    assert found[0].kl < 1e-4
    assert found[-1] == Divergence(0.0, 1.0)


class HeadAlone:
    """What divergences read of a model: a head whose rows have much in common."""

    def __init__(self, cap: float | None) -> None:
        generator = np.random.default_rng(5)
        self.head = generator.standard_normal((50, 8)).astype(np.float32) + np.float32(6)
        self.spec = SimpleNamespace(
            vocab_size=50, head_name="head", final_norm_name="norm.weight", norm="rmsnorm",
            norm_offset=0.0, norm_eps=1e-6, norm_bias=False, final_softcap=cap,
        )  # fmt: skip

    def rows(self, name: str, indices: np.ndarray) -> np.ndarray:
        return self.head[indices]

    def read(self, name: str) -> np.ndarray:
        return np.full(8, 3, np.float32)

    def release(self) -> None:
        pass


@pytest.mark.parametrize("cap", [None, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_divergence_where_all_logits_move(cap: float | None, dtype: torch.dtype) -> None:
    reader = HeadAlone(cap)
    generator = torch.Generator().manual_seed(1)
    dense = torch.rand(30, 8, generator=generator) + 1
    far, near = torch.randn(30, 8, generator=generator), torch.rand(30, 8, generator=generator)
    others = [far, dense + 0.1, near + 0.2]

    def log_p(states: torch.Tensor) -> torch.Tensor:
        normed = states.double() * (states.double().square().mean(-1, True) + 1e-6).rsqrt() * 3
        logits = normed @ torch.from_numpy(reader.head).double().T
        logits = logits if cap is None else torch.tanh(logits / cap) * cap
        return logits.log_softmax(-1)

    found = divergences(reader, dense, others, CPU, dtype)  # type: ignore[arg-type]
    for other, measured in zip(others, found, strict=True):
        kl = (log_p(dense).exp() * (log_p(dense) - log_p(other))).sum(-1).mean()
        same = (log_p(dense).argmax(-1) == log_p(other).argmax(-1)).double().mean()
        close = 1e-4 if dtype == torch.float32 else 0.05
        assert measured.kl == pytest.approx(float(kl), rel=close, abs=1e-5)
        assert measured.agreement == pytest.approx(float(same), abs=0.07)


def made_up(spec) -> Sensitivity:
    """Attention is worth a lot, the MLP of later layers little."""
    alone = {}
    for group in groups_of(spec):
        worth = (10 if "up" not in group.roles and group.roles != ("down",) else 1) / (
            1 + group.layer
        )
        alone[group] = {
            "8:16": Divergence(0.01 * worth, 0.99),
            "12:16": Divergence(0.001 * worth, 0.997),
        }
    whole = {"6:16": (2.0, 0.5), "8:16": (0.4, 0.8), "12:16": (0.04, 0.94)}
    return Sensitivity(alone, {pattern: Divergence(*of) for pattern, of in whole.items()})


def allocator_on(store, values="int8") -> Allocator:
    reader = open_base(store, BASE)[2]
    return Allocator(reader.spec, vectors_of(reader), made_up(reader.spec), values, "int8")


@pytest.mark.parametrize("values", ["int8", "int4"])
@pytest.mark.parametrize("family", ["llama", "qwen2"])  # a head of its own, and a tied one
def test_the_share_is_that_of_the_packed_model(store, add_base, family, values) -> None:
    add_base(family)
    budget = 0.78 if values == "int8" else 0.62
    chosen = allocator_on(store, values).within(budget)
    assert not chosen.allocation.uniform
    options = ExtractOptions("python", values=values)
    prepared = prepared_for(store, options, allocation=chosen.allocation)
    name = extract(store, prepared, NullProgress()).name
    dense = add_dense(store, BASE, NullProgress(), DenseForm(values="int8", head="int8")).name
    with open_model(store, name) as ours, open_model(store, dense) as theirs:
        share = weight_bytes_per_token(ours) / weight_bytes_per_token(theirs)
    assert chosen.share == pytest.approx(share, rel=1e-9)
    assert share <= budget


def test_density_stays_where_it_is_worth_most(store, add_base) -> None:
    add_base("llama")
    allocator = allocator_on(store)
    chosen = allocator.within(0.85)
    allocation = chosen.allocation
    assert 0.82 < chosen.share <= 0.85
    assert allocation.of("model.layers.0.self_attn.v_proj.weight").kind == "dense"
    first, last = (
        allocation.of(f"model.layers.{layer}.mlp.up_proj.weight").density for layer in (0, 2)
    )
    assert first >= last < 1
    # Within a group all matrices have one pattern.
    for group in groups_of(allocator._spec):
        assert len({allocation.of(name) for name in names_of(allocator._spec, group)}) == 1
    uniform = allocator.judge(Allocation(Pattern.parse("10:16")))
    same = allocator.within(uniform.share)
    assert same.loss < uniform.loss and same.agreement > uniform.agreement


def test_a_budget_below_the_least_says_what_that_is(store, add_base) -> None:
    add_base("llama")
    with pytest.raises(UsageError, match=r"budget 0\.2 is too small; .* 4:16 everywhere takes 0"):
        allocator_on(store).within(0.2)


def test_as_many_bytes_as_a_pattern_everywhere(store, add_base) -> None:
    add_base("llama")
    allocator = allocator_on(store, "int4")
    uniform = allocator.judge(Allocation(Pattern.parse("10:16")))
    chosen = allocator.like(Pattern.parse("10:16"))
    assert uniform.share - 0.02 < chosen.share <= uniform.share
    assert chosen.loss < uniform.loss


def test_a_known_base_is_laid_out_and_not_measured(store, add_base, monkeypatch) -> None:
    add_base("llama")
    options = ExtractOptions("python", method="sparsegpt", values="int4")
    pattern = Pattern.parse("10:16")
    assert laid_out(store, BASE, options, pattern) is None  # nothing comes along for it
    found = made_up(open_base(store, BASE)[2].spec)
    asked = []

    def comes_along(base: str, spec: ArchSpec) -> Sensitivity:
        asked.append((base, spec.num_layers))
        return found

    monkeypatch.setattr("subllm.making.extraction.sensitivity.measure.known", comes_along)
    chosen = laid_out(store, BASE, options, pattern)
    assert chosen is not None and asked == [(BASE, 3)]
    assert chosen == allocator_on(store, "int4").like(pattern)
    notes = Counted()
    assert sensitivity(store, BASE, options, load_catalog(), notes) == found
    assert notes.notes == [f"sensitivity of {BASE}: comes with subllm"] and not notes.done
    # A text of one's own is laid out alike, though a goal has it measured.
    own = replace(options, calibration="pack:java")
    assert laid_out(store, BASE, own, pattern) == chosen
    assert sensitivity(store, BASE, own, load_catalog(), Counted()) != found
    # A method that no measurement stands for.
    assert laid_out(store, BASE, replace(options, method="magnitude"), pattern) is None
    assert laid_out(store, BASE, options, Pattern.parse("2:4")) is None


@pytest.mark.parametrize(("base", "layers"), [("0.5b", 24), ("1.5b", 28)])
def test_what_comes_along_fits_its_base_only(base: str, layers: int) -> None:
    base = f"qwen2.5-coder:{base}"
    roles = ("q", "k", "v", "o", "gate", "up", "down")
    spec = SimpleNamespace(
        num_layers=layers, linears=[SimpleNamespace(role=role) for role in roles]
    )
    found = known(base, spec)  # type: ignore[arg-type]
    assert found is not None and list(found.alone) == groups_of(spec)  # type: ignore[arg-type]
    assert all(of["8:16"].kl > 0 for of in found.alone.values())
    assert found.whole["8:16"].kl > found.whole["10:16"].kl > found.whole["12:16"].kl
    spec.num_layers -= 1
    assert known(base, spec) is None  # type: ignore[arg-type]
    assert known("nobody:1b", spec) is None  # type: ignore[arg-type]


def test_keeping_takes_the_fewest_bytes(store, add_base) -> None:
    add_base("llama")
    allocator = allocator_on(store)
    some, more = allocator.keeping(0.85), allocator.keeping(0.95)
    assert some.agreement >= 0.85 and more.agreement >= 0.95
    assert some.share < more.share
    assert allocator.within(some.share - 0.01).agreement < 0.85
    everything = allocator.keeping(1.0)
    assert everything.allocation.uniform and str(everything.allocation) == "dense"


def test_losses_between_patterns_follow_the_whole_model(store, add_base) -> None:
    add_base("llama")
    allocator = allocator_on(store)
    group = Group(0, ("v",))
    loss = {pattern.n: allocator.loss(group, pattern) for pattern in LEVELS if pattern.n}
    assert (loss[8], loss[12]) == (pytest.approx(0.1), pytest.approx(0.01))
    assert loss[10] == pytest.approx(math.sqrt(0.1 * 0.01))  # the whole model's line in N
    assert loss[6] == pytest.approx(0.1 * 2.0 / 0.4)  # beyond: its ratio
    assert list(loss.values()) == sorted(loss.values(), reverse=True)
    # At a uniform pattern the estimate is what the whole model had.
    for pattern, agreement in (("8:16", 0.8), ("12:16", 0.94)):
        judged = allocator.judge(Allocation(Pattern.parse(pattern)))
        assert judged.agreement == pytest.approx(agreement)


def test_records_come_back_and_damage_does_not(store, add_base) -> None:
    add_base("llama")
    measured = made_up(open_base(store, BASE)[2].spec)
    data = to_json(KEY, measured)
    assert from_json(data, KEY) == measured
    assert from_json(data, {"made": "otherwise"}) is None
    assert from_json(data[:-40], KEY) is None
    assert from_json(b"[]", KEY) is None


def test_a_measurement_lasts_as_long_as_its_base(store, add_base) -> None:
    add_base("llama")
    digest = store.resolve(BASE)
    file, stray = (
        store.workspace.measured(base, "0123") for base in (digest, "sha256-" + "0" * 64)
    )
    file.parent.mkdir()
    for path in (file, stray):
        path.write_text("{}")
    report = gc(store)
    assert report.caches == (store.workspace.relative(stray),)
    assert file.exists() and not stray.exists()
    remove(store, BASE)
    assert not file.exists()
