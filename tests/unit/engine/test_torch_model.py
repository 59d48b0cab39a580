"""The forward pass against transformers' own modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles.tiny_models import CONFIGS, VOCAB, oracle, source

from subllm.engine.backends.torch.backend import pick_device
from subllm.engine.backends.torch.kv import KvSlab
from subllm.engine.backends.torch.model import TorchModel
from subllm.engine.backends.torch.weights import load_weights
from subllm.errors import BackendError

CPU = torch.device("cpu")


def build(family: str) -> tuple[TorchModel, object]:
    reference = oracle(family)
    given = source(reference)
    return TorchModel(given.spec, load_weights(given, torch.float32, CPU)), reference


def slab(model: TorchModel) -> KvSlab:
    return KvSlab(model.spec, torch.float32, CPU)


def expected(reference: object, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return reference(tokens[None]).logits[0]  # type: ignore[operator]


@pytest.mark.parametrize("family", CONFIGS)
@torch.inference_mode()
def test_prefill_and_decode_match_transformers(family: str) -> None:
    model, reference = build(family)
    tokens = torch.randint(VOCAB, (30,), generator=torch.Generator().manual_seed(1))
    want = expected(reference, tokens)
    assert want.std() > 0.05  # else closeness would mean nothing

    whole = model.logits(model.hidden(tokens, [(slab(model), 0, 30)]))
    torch.testing.assert_close(whole, want, rtol=0, atol=1e-4)

    kv = slab(model)  # two prefill chunks, then one token at a time
    pieces = [model.hidden(tokens[:5], [(kv, 0, 5)]), model.hidden(tokens[5:17], [(kv, 5, 12)])]
    pieces += [model.hidden(tokens[i : i + 1], [(kv, i, 1)]) for i in range(17, 30)]
    torch.testing.assert_close(model.logits(torch.cat(pieces)), want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["qwen2", "gemma3"])
@torch.inference_mode()
def test_a_mixed_step_computes_each_sequence_as_if_alone(family: str) -> None:
    model, reference = build(family)
    generator = torch.Generator().manual_seed(2)
    first = torch.randint(VOCAB, (14,), generator=generator)
    second = torch.randint(VOCAB, (9,), generator=generator)
    a, b = slab(model), slab(model)
    model.hidden(first[:13], [(a, 0, 13)])
    model.hidden(second[:2], [(b, 0, 2)])
    both = model.hidden(torch.cat([first[13:], second[2:]]), [(a, 13, 1), (b, 2, 7)])
    logits = model.logits(both)
    torch.testing.assert_close(logits[:1], expected(reference, first)[13:], rtol=0, atol=1e-4)
    torch.testing.assert_close(logits[1:], expected(reference, second)[2:], rtol=0, atol=1e-4)


@torch.inference_mode()
def test_bf16_stays_near_float32() -> None:
    reference = oracle("qwen2")
    given = source(reference)
    model = TorchModel(given.spec, load_weights(given, torch.bfloat16, CPU))
    tokens = torch.arange(20)
    kv = KvSlab(model.spec, torch.bfloat16, CPU)
    got = model.logits(model.hidden(tokens, [(kv, 0, 20)]))
    want = expected(reference, tokens)
    assert got.dtype == torch.float32
    assert (got - want).abs().mean() < 0.02 * want.std()
    assert (got - want).abs().max() > 0  # it did run in bf16


@torch.inference_mode()
def test_slab_growth_and_fork_keep_contents() -> None:
    model, _ = build("mistral")
    tokens = torch.randint(VOCAB, (150,), generator=torch.Generator().manual_seed(3))
    grown = slab(model)
    for start in range(0, 150, 50):
        model.hidden(tokens[start : start + 50], [(grown, start, 50)])
    assert grown.capacity == 192
    fork = slab(model)
    fork.copy_from(grown, 100)
    at_once = slab(model)
    want = model.hidden(tokens, [(at_once, 0, 150)])
    got = model.hidden(tokens[100:], [(fork, 100, 50)])
    torch.testing.assert_close(got, want[100:], rtol=0, atol=1e-5)


def test_equal_matrices_are_shared_while_in_use() -> None:
    given = source(oracle("llama"))
    shared = type(given)(given.spec, given.tensors, cache_key="digest")
    one = load_weights(shared, torch.float32, CPU)
    two = load_weights(shared, torch.float32, CPU)
    assert two.embedding is one.embedding
    assert two.head is one.head
    assert two.head is not two.embedding
    assert load_weights(given, torch.float32, CPU).embedding is not one.embedding
    np.testing.assert_array_equal(
        load_weights(shared, torch.bfloat16, CPU).head.float().numpy(),
        one.head.bfloat16().float().numpy(),
    )


@pytest.mark.parametrize("name", ["gpu", "meta:x", "mps", "cuda:99", "cuda:x", ""])
def test_a_device_that_is_not_there_is_said_so(name: str) -> None:
    with pytest.raises(BackendError, match=r"choose cpu|use auto, cpu or cuda"):
        pick_device(name)
