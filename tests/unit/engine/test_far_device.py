"""Serving with weights and cache on a device of their own: what is left on the processor by
mistake fails on the device that stands in for a GPU, and there alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from local_engines import local_engine
from oracles.backends import INTERPRETED, Loadable
from oracles.far_device import FAR, far_device
from oracles.packed_models import packed_oracle
from oracles.tiny_models import tokenizer

from subllm.engine.backend import KV_BLOCK
from subllm.engine.backends.cuda import CudaBackend
from subllm.engine.backends.cuda import backend as cuda
from subllm.engine.backends.torch import TorchBackend
from subllm.engine.backends.torch import backend as plain
from subllm.engine.request import Request, SamplingParams, TokenEvent

pytestmark = pytest.mark.skipif(INTERPRETED, reason="the interpreter reads the processor's memory")

PARAMS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.9},
    {"temperature": 1.3, "top_k": 20, "top_p": 0.9, "min_p": 0.01},
    {"repetition_penalty": 1.3, "presence_penalty": 0.4, "logit_bias": ((7, 2.0), (9, -4.0))},
    {"logprobs": 3},
]


def ids_of(seed: int, length: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(0, 256, length).tolist())


def served(backend: Any) -> dict[str, list[Any]]:
    """Texts that are drawn in every way, a beginning that two share, one that begins with a known
    word, a score; the pool of keys and values grows."""
    engine = local_engine(backend, tokenizer(), context_length=256, max_batch=3, prefill_chunk=48)
    first = ids_of(9, KV_BLOCK + 5)
    asked = [
        Request(
            str(i),
            first * (i % 2) + ids_of(i, 10 + 9 * i),
            SamplingParams(max_tokens=6, ignore_eos=True, seed=i, **params),
        )
        for i, params in enumerate(PARAMS)
    ]
    greedy = SamplingParams(max_tokens=3, ignore_eos=True)
    asked.append(Request("begun", first, greedy, begun=tuple(b"def")))
    asked.append(Request("score", ids_of(3, 90), score=2))
    found: dict[str, list[Any]] = {request.id: [] for request in asked}
    for request in asked:
        engine.add(request)
    while engine.has_work():
        for event in engine.step():
            assert event.error is None
            found[event.request_id] += said(event)
    engine.close()
    return found


def said(event: TokenEvent) -> list[Any]:
    return [*event.text, *event.tokens, *(one.token for one in event.logprobs)]


@pytest.mark.parametrize(
    ("backend", "module", "values", "pattern"),
    [
        (CudaBackend, cuda, "int4", "8:16"),
        (CudaBackend, cuda, "int8", "mixed"),
        (CudaBackend, cuda, "bf16", "dense"),
        (TorchBackend, plain, "int8", "8:16"),
    ],
)
@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_what_is_served_lies_on_its_device(
    backend: Callable[..., Any],
    module: Any,
    values: str,
    pattern: str,
    family: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "pick_device", torch.device)
    monkeypatch.setattr(cuda, "_FIRST_TOKENS", KV_BLOCK)
    packed, _ = packed_oracle(family, values, pattern)

    def loaded(device: str) -> Any:
        return backend(Loadable(packed), device=device, dtype="float32", threads=1)

    want = served(loaded("cpu"))
    with far_device() as device:
        got = served(loaded(FAR.type))
        assert device.peak > 0
    assert got == want
    assert all(want.values())
