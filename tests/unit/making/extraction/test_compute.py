"""What the machine decides of a plan: measured once, then kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from subllm.errors import UsageError
from subllm.making.extraction.compute import choose, computes
from subllm.making.extraction.defaults import DEFAULT_SAMPLES, FAST_SECONDS, fast_counts
from subllm.making.extraction.estimate import Rates
from subllm.making.extraction.extract import extract
from subllm.making.extraction.prepare import ExtractOptions, open_base
from subllm.making.pruning.method import Need
from subllm.models.store.store import Store
from subllm.progress import NullProgress

from .conftest import BASE, prepared_for

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SQUARES = frozenset({Need.SQUARE_SUMS})
EXACT = ("bfloat16", "float32")
ALL = (*EXACT, "int8")


@pytest.fixture
def plan(store: Store, add_base):
    add_base("llama")
    options = ExtractOptions("python", pattern="2:4", compute="float32")
    return prepared_for(store, options).plan


def chosen(plan, *, counts=(16,), allowed=EXACT, started=(), rates=(1.0, 1.0, 1.0), each=1.0):
    """(samples, compute, known); `each`: seconds per sequence."""
    speed = dict(zip(ALL, rates, strict=False))

    def plan_of(samples, compute):
        record = plan.calibration.model_copy(update={"samples": samples})
        return replace(plan, calibration=record, compute=compute)

    digests = {plan_of(*one).digest for one in started}
    choice = choose(
        plan_of, counts, allowed, lambda plan: plan.digest in digests, speed.__getitem__,
        lambda samples, compute: samples * each,
    )  # fmt: skip
    assert choice.plan == plan_of(choice.samples, choice.compute)
    return choice.samples, choice.compute, choice.known


def test_a_cpu_runs_what_it_multiplies_faster(plan) -> None:
    def compute(*rates, allowed=EXACT):
        return chosen(plan, allowed=allowed, rates=rates)[1]

    assert compute(162.0, 250.0) == "float32"
    assert compute(970.0, 330.0) == "bfloat16"
    assert compute(100.0, 110.0) == "bfloat16", "not worth twice the memory"
    assert compute(870.0, 160.0, 500.0, allowed=ALL) == "bfloat16"
    assert compute(105.0, 160.0, 490.0, allowed=ALL) == "int8"
    assert compute(36.0, 160.0, 170.0, allowed=ALL) == "float32", "not worth the rounding"


def test_what_may_be_chosen() -> None:
    assert computes("auto", CPU, SQUARES, fast=False) == EXACT
    assert computes("auto", CPU, SQUARES, fast=True) == ALL
    assert computes("auto", CPU, frozenset(["another"]), fast=True) == EXACT
    assert computes("auto", GPU, SQUARES, fast=True) == ("bfloat16",)
    assert computes("float64", CPU, SQUARES, fast=True) == ("float64",)
    assert computes("int8", CPU, SQUARES, fast=False) == ("int8",)
    for wanted, device in (("float16", CPU), ("int8", GPU)):
        with pytest.raises(UsageError, match=wanted):
            computes(wanted, device, SQUARES, fast=False)


def test_what_was_begun_is_gone_on_with(plan) -> None:
    for begun, rates in (((16, "float32"), (9.0, 1.0)), ((16, "bfloat16"), (1.0, 9.0))):
        assert chosen(plan, started=[begun], rates=rates) == (*begun, True)
    counts = (16, 32, 64)
    for begun in ((16, "int8"), (32, "bfloat16"), (64, "float32")):
        for each in (0.1, 100.0):
            got = chosen(plan, counts=counts, allowed=ALL, started=[begun], each=each)
            assert got == (*begun, True)
    both = [(16, "float32"), (64, "bfloat16")]
    assert chosen(plan, counts=counts, started=both, each=9.0) == (64, "bfloat16", True)


def test_as_many_sequences_as_fit_the_time(plan) -> None:
    counts = (16, 32, 64)
    for each, samples in ((100.0, 16), (FAST_SECONDS / 32, 32), (FAST_SECONDS / 65, 64), (0, 64)):
        assert chosen(plan, counts=counts, each=each) == (samples, "bfloat16", False)


def test_counts_are_steps_up_to_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fast_counts()[0] >= 16
    assert fast_counts()[-1] <= DEFAULT_SAMPLES
    monkeypatch.setattr("subllm.making.extraction.defaults.DEFAULT_SAMPLES", 64)
    assert fast_counts() == (16, 32, 64)
    monkeypatch.setattr("subllm.making.extraction.defaults.DEFAULT_SAMPLES", 8)
    assert fast_counts() == (8,)


@pytest.mark.parametrize("compute", ALL)
def test_measures_this_machine_once(store: Store, add_base, compute: str) -> None:
    add_base("llama")
    rates = Rates(open_base(store, BASE)[2].spec, CPU)
    assert rates(compute) == rates(compute) > 1e6


def test_the_store_says_what_was_begun(store: Store, add_base) -> None:
    add_base("llama")
    prepared = prepared_for(store, ExtractOptions("python", pattern="2:4", compute="float32"))
    assert not store.begun(prepared.plan.workspace)
    store.partial(prepared.plan.workspace).mkdir(parents=True)
    assert store.begun(prepared.plan.workspace)
    extract(store, prepared, NullProgress())
    assert not store.begun(prepared.plan.workspace)
    assert store.find_plan(prepared.plan.digest) is not None
