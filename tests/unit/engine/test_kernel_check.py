"""A card whose kernels fail, or compute something else, does not get to serve a model."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from oracles.backends import INTERPRETED, Loadable
from oracles.packed_models import NAME, packed_oracle, store_model

from subllm.engine import loader
from subllm.engine.backends.cuda.check import check_kernels
from subllm.engine.backends.cuda.weights import Weights, load_weights
from subllm.engine.backends.torch import TorchBackend
from subllm.engine.computing import Computing
from subllm.errors import KernelError
from subllm.kernels.products import triton_ops
from subllm.kernels.products.triton import plain

pytestmark = pytest.mark.skipif(INTERPRETED, reason="puts kernels of its own in their place")


@pytest.fixture
def weights() -> Weights:
    packed, _ = packed_oracle("qwen2", "int4", "mixed")
    return load_weights(Loadable(packed), torch.device("cpu"))


def _instead(monkeypatch: pytest.MonkeyPatch, product: Any) -> None:
    kernels = ModuleType("kernels")
    kernels.packed_matmul = product  # type: ignore[attr-defined]
    monkeypatch.setattr(triton_ops, "implementation", lambda _kind: kernels)


def test_what_computes_the_same_passes(weights: Weights) -> None:
    check_kernels(weights, torch.bfloat16)
    check_kernels(weights, torch.float32)


@pytest.mark.parametrize("tokens", [1, 16, 80])
def test_a_product_that_differs_in_one_row_of_one_way_is_found(
    weights: Weights, monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    def wrong(x: torch.Tensor, weight: Any, bias: Any, residual: Any, out: torch.Tensor) -> None:
        plain.packed_matmul(x, weight, bias, residual, out)
        if len(x) == tokens:
            out[:, -1] += 0.1 * out.abs().max()

    _instead(monkeypatch, wrong)
    with pytest.raises(KernelError, match=f"{tokens} tokens: off by"):
        check_kernels(weights, torch.float32)


def test_what_is_no_number_is_found(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    _instead(monkeypatch, lambda x, weight, bias, residual, out: out.fill_(torch.nan))
    with pytest.raises(KernelError, match="off by nan"):
        check_kernels(weights, torch.float32)


def test_a_kernel_that_does_not_compile_is_one_line(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise ValueError("PassManager::run failed\nand a page of intermediate code")

    _instead(monkeypatch, fails)
    with pytest.raises(KernelError) as found:
        check_kernels(weights, torch.bfloat16)
    assert "PassManager::run failed); choose" in str(found.value)


def test_memory_that_is_short_is_another_matter(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    _instead(monkeypatch, fails)
    with pytest.raises(torch.OutOfMemoryError):
        check_kernels(weights, torch.bfloat16)


def test_the_torch_backend_steps_in_unless_another_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    packed, _ = packed_oracle("qwen2", "int4", "8:16")
    store = store_model(tmp_path, packed)
    found = loader.loader_of

    def loader_of(name: Any) -> Any:
        def fails(*_: Any, **__: Any) -> Any:
            raise KernelError("a kernel does not run on cuda:0 (...)")

        return found(name) if name == "torch" else fails

    monkeypatch.setattr(loader, "loader_of", loader_of)
    with caplog.at_level(logging.WARNING, "subllm.engine"):
        draft = loader.load_draft(store, NAME, Computing(device="cpu", threads=1))
    assert isinstance(draft.backend, TorchBackend)
    assert "steps in" in caplog.text
    draft.backend.close()
    with pytest.raises(KernelError):
        loader.load_draft(store, NAME, Computing(backend="native", device="cpu", threads=1))
