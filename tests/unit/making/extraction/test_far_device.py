"""Extraction and recovery on a device that is not the processor, and when that is given up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles.far_device import FAR, far_device

from subllm.errors import DeviceError, UsageError
from subllm.kernels.sparsity.packing import unpack_mask
from subllm.making.extraction import recovering
from subllm.making.extraction.extract import _Run, extract
from subllm.making.extraction.prepare import ExtractOptions
from subllm.making.extraction.recovering import check_job, device_for, fitting_job
from subllm.making.recovery import card
from subllm.models.store.model_files import open_model
from subllm.progress import NullProgress

from .conftest import prepared_for
from .test_recovering import HELD, job

GB = 10**9
CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    ("options", "budget"),
    [
        ({"values": "int4"}, "128tok"),
        ({"method": "sparsegpt"}, ""),
        ({"method": "dpruner"}, ""),
        ({"method": "maskllm", "pattern": "2:4", "method_params": {"steps": 2, "batch": 2}}, ""),
    ],
    ids=["wanda and recovery", "sparsegpt", "dpruner", "maskllm"],
)
def test_all_of_an_extraction_lies_on_its_device(store, add_base, options, budget) -> None:
    """It is that of the processor, up to the rounding of statistics."""
    add_base("qwen2")
    chosen = []
    for device in (torch.device("cpu"), FAR):
        given = ExtractOptions(
            "python", compute="float32", heldout=HELD, tag=device.type, **options
        )
        prepared = prepared_for(store, given, recovery=job(budget) if budget else None)
        prepared = replace(prepared, device=device, cached=None)
        prepared.plan = replace(prepared.plan, device=device.type)
        with far_device():
            report = extract(store, prepared, NullProgress())
        files = open_model(store, report.name)
        names = [
            e.name for e in report.manifest.tensors if e.blob == "own" and e.pattern != "dense"
        ]
        chosen.append({name: unpack_mask(files.tensor(name)) for name in names})
        assert report.manifest.perplexity["python"].after > 1
    here, far = chosen
    assert here.keys() == far.keys()
    equal = np.mean([np.mean(here[name] == far[name]) for name in here])
    assert equal > 0.99


def test_a_recovery_that_does_not_fit_a_card_runs_on_the_processor(
    store, add_base, monkeypatch
) -> None:
    add_base("qwen2")
    reader = prepared_for(store, ExtractOptions("python")).reader
    free = {"cuda": GB, "cpu": 8 * GB}
    monkeypatch.setattr(recovering, "free_bytes", lambda device: free[device.type])
    assert device_for(reader, job("1ktok"), 1000, CUDA, "bfloat16") == (CUDA, "")
    free["cuda"] = GB // 10
    device, why = device_for(reader, job("1ktok"), 1000, CUDA, "bfloat16")
    assert device.type == "cpu"
    assert why.startswith("this runs on the processor: recovery needs 0.6 GB of a GPU's memory")
    with pytest.raises(UsageError, match="use --device cpu"):
        check_job(reader, job("1ktok"), 1000, CUDA, "bfloat16")
    # A gigabyte more than is free is put aside, or takes 8 bits where that is enough.
    free["cuda"] = 2 * GB
    monkeypatch.setattr(card, "_RESERVED", 0)
    monkeypatch.setattr("subllm.making.recovery.eight_bit.available", lambda: True)
    check_job(reader, job("1ktok"), 500_000_000, CUDA, "bfloat16")
    assert fitting_job(reader, job("1ktok"), 500_000_000, CUDA, "bfloat16") == job("1ktok")
    narrow = fitting_job(reader, job("1ktok"), 300_000_000, CUDA, "bfloat16")
    assert narrow.recipe.moments == "int8"


def test_a_card_that_runs_out_of_memory_is_one_line(store, add_base, monkeypatch) -> None:
    add_base("qwen2")
    prepared = prepared_for(store, ExtractOptions("python", compute="float32", heldout=HELD))

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(_Run, "run", full)
    with pytest.raises(DeviceError, match="no memory left on cuda for the extraction; end what"):
        extract(store, replace(prepared, device=CUDA), NullProgress())
