"""The native forward pass against transformers' own modules, in float32, with the very
weights that are packed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from oracles.packed_models import packed_oracle
from oracles.tiny_models import CONFIGS, VOCAB

from subllm.engine.backend import KV_BLOCK
from subllm.engine.backends.native import NativeBackend

Logits = npt.NDArray[np.float32]
EXACT = {"exact": True, "kv": "float32"}


def tokens_of(count: int, seed: int = 1) -> npt.NDArray[np.int32]:
    return np.random.default_rng(seed).integers(0, VOCAB, count).astype(np.int32)


def expected(reference: Any, tokens: npt.NDArray[np.int32]) -> Logits:
    with torch.no_grad():
        logits: Logits = reference(torch.from_numpy(tokens).long()[None]).logits[0].numpy()
    assert logits.std() > 0.05  # else closeness would mean nothing
    return logits


def whole(backend: NativeBackend, tokens: npt.NDArray[np.int32]) -> Logits:
    return backend.logits(backend.kv_open(), 0, tokens)


@pytest.mark.parametrize("family", CONFIGS)
def test_prefill_and_decode_match_transformers(family: str) -> None:
    packed, reference = packed_oracle(family)
    backend = NativeBackend(packed, **EXACT)
    tokens = tokens_of(90)
    want = expected(reference, tokens)
    np.testing.assert_allclose(whole(backend, tokens), want, rtol=0, atol=1e-4)

    kv = backend.kv_open()  # two prefill chunks across a block's edge, then token by token
    pieces = [backend.logits(kv, 0, tokens[:5]), backend.logits(kv, 5, tokens[5:70])]
    pieces += [backend.logits(kv, i, tokens[i : i + 1]) for i in range(70, 90)]
    np.testing.assert_allclose(np.concatenate(pieces), want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("pattern", ["8:16", "50%", "mixed"])
@pytest.mark.parametrize("values", ["bf16", "int8", "int4"])
def test_packed_weights_are_the_weights(values: str, pattern: str) -> None:
    packed, reference = packed_oracle("qwen2", values, pattern)
    tokens = tokens_of(40)
    got = whole(NativeBackend(packed, **EXACT), tokens)
    np.testing.assert_allclose(got, expected(reference, tokens), rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3", "starcoder2"])
@pytest.mark.parametrize(("values", "mean"), [("bf16", 0.01), ("int8", 0.02), ("int4", 0.02)])
def test_how_far_rounded_activations_are_off(family: str, values: str, mean: float) -> None:
    """Mean error in units of the logits' spread, for the products that serving uses: bf16
    activations with bf16 weights, int8 ones (8 bits, a scale per 128) with the others."""
    packed, reference = packed_oracle(family, values)
    tokens = tokens_of(60)
    want = expected(reference, tokens)
    error = np.abs(whole(NativeBackend(packed), tokens) - want)
    assert 0 < error.mean() < mean * want.std()
    worst = np.sort(error.max(axis=1))  # of every position; one may stand out
    assert worst[-2] < 7 * mean * want.std()
    assert worst[-1] < 12 * mean * want.std()


@pytest.mark.parametrize(("kv", "mean"), [("bfloat16", 0.01), ("int8", 0.03)])
def test_how_far_rounded_keys_and_values_are_off(kv: Any, mean: float) -> None:
    packed, reference = packed_oracle("gemma3")
    tokens = tokens_of(150)
    want = expected(reference, tokens)
    backend = NativeBackend(packed, kv=kv, exact=True)
    slab = backend.kv_open()
    got = np.concatenate(
        [backend.logits(slab, 0, tokens[:149]), backend.logits(slab, 149, tokens[149:])]
    )
    error = np.abs(got - want)
    assert 0 < error.mean() < mean * want.std()


@pytest.mark.parametrize(
    "shape",
    [
        {"num_key_value_heads": 1, "head_dim": 6},
        {"num_attention_heads": 6, "num_key_value_heads": 6, "head_dim": 20},
        {"num_attention_heads": 18, "num_key_value_heads": 2, "head_dim": 34},
        {"num_attention_heads": 70, "num_key_value_heads": 1, "head_dim": 2},
        {"hidden_size": 40, "intermediate_size": 200, "head_dim": 8},
    ],
    ids=str,
)
def test_shapes_that_fill_no_vector(shape: dict[str, int]) -> None:
    packed, reference = packed_oracle("llama", **shape)
    tokens = tokens_of(75)
    backend = NativeBackend(packed, **EXACT)
    want = expected(reference, tokens)
    np.testing.assert_allclose(whole(backend, tokens), want, rtol=0, atol=1e-4)
    kv = backend.kv_open()
    backend.logits(kv, 0, tokens[:74])
    np.testing.assert_allclose(backend.logits(kv, 74, tokens[74:]), want[74:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_a_long_context(family: str) -> None:
    """More keys than one part of a split range holds, and more tokens than one pass."""
    packed, reference = packed_oracle(family, max_position_embeddings=4096)
    tokens = tokens_of(2200)
    want = expected(reference, tokens)
    backend = NativeBackend(packed, **EXACT)
    kv = backend.kv_open()
    got = [backend.logits(kv, 0, tokens[:2190])]
    got += [backend.logits(kv, i, tokens[i : i + 2]) for i in range(2190, 2200, 2)]
    np.testing.assert_allclose(np.concatenate(got), want, rtol=0, atol=3e-4)


def test_a_fork_shares_blocks_until_one_side_writes() -> None:
    packed, reference = packed_oracle("mistral")
    backend = NativeBackend(packed, **EXACT)
    empty = backend.resident_bytes
    block = KV_BLOCK * backend.kv_bytes_per_token
    tokens, other = tokens_of(200), tokens_of(200, seed=2)
    first = backend.kv_open()
    backend.logits(first, 0, tokens[:150])
    assert backend.resident_bytes - empty == 3 * block
    second = backend.kv_fork(first, 100)
    third = backend.kv_fork(first, 128)
    assert backend.resident_bytes - empty == 3 * block
    mixed = np.concatenate([tokens[:100], other[100:]])
    got = backend.logits(second, 100, other[100:])
    np.testing.assert_allclose(got, expected(reference, mixed)[100:], rtol=0, atol=1e-4)
    assert backend.resident_bytes - empty == (3 + 3) * block  # one shared, three of its own
    want = expected(reference, tokens)
    np.testing.assert_allclose(
        backend.logits(first, 150, tokens[150:]), want[150:], rtol=0, atol=1e-4
    )
    np.testing.assert_allclose(
        backend.logits(third, 128, tokens[128:]), want[128:], rtol=0, atol=1e-4
    )
    backend.kv_close(first)
    np.testing.assert_allclose(backend.logits(third, 60, tokens[60:]), want[60:], rtol=0, atol=1e-4)
    for slab in (second, third):
        backend.kv_close(slab)
    assert backend.resident_bytes == empty


def test_positions_can_be_overwritten() -> None:
    packed, reference = packed_oracle("gemma3")
    backend = NativeBackend(packed, **EXACT)
    tokens, kv = tokens_of(80), backend.kv_open()
    backend.logits(kv, 0, tokens_of(120, seed=3))
    backend.logits(kv, 0, tokens[:70])
    got = backend.logits(kv, 70, tokens[70:])
    np.testing.assert_allclose(got, expected(reference, tokens)[70:], rtol=0, atol=1e-4)


def test_threads_change_nothing() -> None:
    packed, _ = packed_oracle("gemma3", "int8", "8:16")
    tokens = tokens_of(100)
    one, all_of_them = (whole(NativeBackend(packed, threads=n), tokens) for n in (1, None))
    np.testing.assert_array_equal(one, all_of_them)
