"""In which dtype blocks run: measured once, then kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from subllm.errors import UsageError
from subllm.extraction.compute import choose_compute
from subllm.extraction.extract import extract
from subllm.extraction.prepare import ExtractOptions, open_base
from subllm.progress import NullProgress
from subllm.store.store import Store

from .conftest import BASE, prepared_for

CPU = torch.device("cpu")


@pytest.fixture
def planned(store: Store, add_base):
    add_base("llama")
    options = ExtractOptions("python", pattern="2:4", compute="float32")
    return prepared_for(store, options), open_base(store, BASE)[2].spec


def choose(planned, wanted="auto", device=CPU, started=(), rates=(1.0, 1.0)):
    prepared, spec = planned
    speed = dict(zip(("bfloat16", "float32"), rates, strict=True))
    digests = {replace(prepared.plan, compute=name).digest for name in started}
    plan = choose_compute(
        wanted, spec, device, prepared.plan, lambda plan: plan.digest in digests, speed.__getitem__
    )
    return plan.compute


def test_a_cpu_runs_what_it_multiplies_faster(planned) -> None:
    assert choose(planned, rates=(162.0, 250.0)) == "float32"
    assert choose(planned, rates=(970.0, 330.0)) == "bfloat16"
    assert choose(planned, rates=(100.0, 110.0)) == "bfloat16", "not worth twice the memory"
    assert choose(planned, device=torch.device("cuda"), rates=(1.0, 9.0)) == "bfloat16"


def test_what_was_begun_is_gone_on_with(planned) -> None:
    assert choose(planned, started=["float32"], rates=(9.0, 1.0)) == "float32"
    assert choose(planned, started=["bfloat16"], rates=(1.0, 9.0)) == "bfloat16"


def test_a_dtype_that_is_named_is_taken(planned) -> None:
    assert choose(planned, "float64", rates=(9.0, 1.0)) == "float64"
    with pytest.raises(UsageError, match="float16"):
        choose(planned, "float16")


def test_measures_this_machine_when_nobody_says(planned) -> None:
    prepared, spec = planned
    chosen = choose_compute("auto", spec, CPU, prepared.plan, lambda plan: False)
    assert chosen.compute in ("bfloat16", "float32")


def test_the_store_says_what_was_begun(store: Store, planned) -> None:
    prepared, _ = planned
    assert not store.begun(prepared.plan.workspace)
    store.partial(prepared.plan.workspace).mkdir(parents=True)
    assert store.begun(prepared.plan.workspace)
    extract(store, prepared, NullProgress())
    assert not store.begun(prepared.plan.workspace)
    assert store.find_plan(prepared.plan.digest) is not None
