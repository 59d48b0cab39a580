"""What a teacher answers in int8, beside float32."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from subllm.recovery import int8_blocks
from subllm.recovery.decoder import load
from subllm.recovery.distil import Recovery
from subllm.recovery.int8_blocks import Int8Blocks, product_rate, worth_it
from subllm.recovery.skeleton import Skeleton, Tables

from .conftest import text
from .test_distil import steps

CPU = torch.device("cpu")


@pytest.mark.parametrize("family", ["qwen2", "gemma3", "starcoder2"])
def test_each_document_runs_alone_and_as_in_float32_but_for_rounding(base, family) -> None:
    reader, rows = base(family), [2, 0, 3]
    given = text(4)
    skeleton = Skeleton(reader, Tables(reader, [given], CPU, torch.float32), CPU, torch.float32)
    int8 = Int8Blocks(reader, 1)
    hidden, calls = skeleton.enter(given, rows)
    for layer, call in enumerate(calls):
        prefix = reader.spec.block_prefix(layer)
        load(skeleton.blocks[layer], lambda n, p=prefix: reader.read(p + n), CPU, torch.float32)
        int8.load(layer)
        with torch.no_grad():
            wanted = skeleton.run(layer, hidden, call)
        before = hidden.clone()
        found = int8.run(hidden, given, rows)
        assert torch.equal(hidden, before)
        assert (found - wanted).norm() < 0.05 * (wanted - hidden).norm()
        # Only the last document of a row is another one: what comes before it stays.
        begin = int(np.flatnonzero(given.starts[rows[0]])[-1])
        other = hidden.clone()
        other[0, begin:] += 1
        changed = int8.run(other, given, rows)
        assert torch.equal(changed[0, :begin], found[0, :begin])
        assert torch.equal(changed[1:], found[1:]) and not torch.equal(changed[0], found[0])
        int8.unload()
        hidden = wanted


def test_what_is_learned_is_asked_in_int8_and_what_is_judged_is_not(task, tmp_path) -> None:
    given = task(rows=12, top_k=16)
    given = replace(given, recipe=replace(given.recipe, lr=1e-3))
    exact, rounded = (
        Recovery(given, tmp_path / str(int8), compute="float32", int8=int8).run(steps(12))
        for int8 in (False, True)
    )
    assert rounded.curve[0] == replace(exact.curve[0], seconds=rounded.curve[0].seconds)
    for one, other in itertools.islice(zip(exact.curve, rounded.curve, strict=True), 1, None):
        assert other.loss == pytest.approx(one.loss, rel=0.02) and other.loss != one.loss
        assert other.heldout_kl == pytest.approx(one.heldout_kl, rel=0.05)
    # What was answered in one way is not taken for the other.
    names = {path.name for path in (tmp_path / "True").iterdir()}
    Recovery(given, tmp_path / "True", compute="float32").run(steps(2))
    assert names < {path.name for path in (tmp_path / "True").iterdir()}


def test_only_where_a_processor_is_faster_in_it_than_in_float32(base, monkeypatch) -> None:
    spec = base().spec
    rates = {"int8": 160.0, "float32": 100.0}
    monkeypatch.setattr(int8_blocks, "product_rate", lambda spec: rates["int8"])
    monkeypatch.setattr(int8_blocks, "float_rate", lambda spec, compute, device: rates[compute])
    assert worth_it("float32", spec, CPU)
    assert not worth_it("float32", spec, torch.device("meta"))
    assert not worth_it("bfloat16", spec, CPU) and not worth_it("float64", spec, CPU)
    rates["int8"] = 140.0
    assert not worth_it("float32", spec, CPU)


def test_the_rate_of_products_is_this_machine_s(base) -> None:
    assert 1e6 < product_rate(base().spec) < 1e15
