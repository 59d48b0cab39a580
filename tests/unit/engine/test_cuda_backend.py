"""The backend of packed weights on a GPU, as far as a processor can show it: forward pass, paged
keys and values, steps of few sizes. What a GPU alone shows is marked so."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from local_engines import local_engine
from oracles.backends import INTERPRETED, Loadable, exact
from oracles.packed_models import MIXED, NAME, PackedMemory, packed_oracle, store_model
from oracles.proposers import Eager, Scripted
from oracles.smallest_model import tiny_source
from oracles.tiny_models import CONFIGS, VOCAB, oracle, source, tokenizer

from subllm.engine.backend import KV_BLOCK, Choice, Chunk, Draw
from subllm.engine.backends.cuda import CudaBackend
from subllm.engine.backends.cuda import backend as module
from subllm.engine.backends.cuda.weights import load_weights
from subllm.engine.backends.torch import TorchBackend
from subllm.engine.computing import Computing
from subllm.engine.kv_room import KvRoom
from subllm.engine.loader import load_engine
from subllm.engine.request import Request, SamplingParams
from subllm.errors import BackendError, LogitsError, WeightsError
from subllm.kernels.products.triton_ops import expand
from subllm.kernels.sparsity.packing import unpack

CPU = torch.device("cpu")
FEW = ["gemma2", "qwen2"] if INTERPRETED else list(CONFIGS)


def ids_of(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB, count).astype(np.int32)


@pytest.mark.parametrize("family", FEW)
def test_logits_are_those_of_transformers(family: str) -> None:
    """Matrices of a layer differ in their patterns; a prompt in two ways, then rows one by one
    and several at a time."""
    packed, reference = packed_oracle(family, "int8", "mixed")
    backend = exact("cpu", packed)
    cuts = [0, 20, 23, 24] if INTERPRETED else [0, 40, 52, *range(53, 60), 69, 80]
    ids = ids_of(cuts[-1])
    with torch.no_grad():
        want = reference(torch.from_numpy(ids[None].astype(np.int64))).logits[0].numpy()
    kv = backend.kv_open()
    got = [backend.logits(kv, a, ids[a:b]) for a, b in pairwise(cuts)]
    np.testing.assert_allclose(np.concatenate(got), want, rtol=0, atol=2e-4)


@pytest.mark.parametrize("values", ["bf16", "int8", "int4"])
def test_bf16_is_as_near_as_the_torch_backend(values: str) -> None:
    packed, reference = packed_oracle("qwen2", values, "8:16")
    ids = ids_of(60)
    with torch.no_grad():
        want = reference(torch.from_numpy(ids[None].astype(np.int64))).logits[0].numpy()
    backend = CudaBackend(Loadable(packed), device="cpu", threads=1)
    kv = backend.kv_open()
    got = np.concatenate([backend.logits(kv, 0, ids[:50]), backend.logits(kv, 50, ids[50:])])
    plain = TorchBackend(Loadable(packed), threads=1)
    slab = plain._slabs[plain.kv_open()]
    model = plain._model
    with torch.inference_mode():
        theirs = model.logits(model.hidden(torch.from_numpy(ids).long(), [(slab, 0, 60)])).numpy()
    ours = np.abs(got - want).mean()
    assert 0 < ours < 1.3 * np.abs(theirs - want).mean()
    assert np.abs(got - theirs).mean() < 0.05 * want.std()


def test_products_of_like_matrices_are_one() -> None:
    packed, _ = packed_oracle("llama", "int4", "8:16", hidden_size=64, num_key_value_heads=4)
    layer = load_weights(Loadable(packed), CPU).layers[0]
    assert [len(p.parts) for p in (layer.qkv, layer.out, layer.up)] == [1, 1, 2]  # 48 rows of gate
    names = [f"model.layers.0.self_attn.{part}_proj.weight" for part in "qkv"]
    whole = np.concatenate([unpack(packed.packed[name]) for name in names])
    np.testing.assert_array_equal(expand(layer.qkv.parts[0]).numpy(), whole)
    assert len(MIXED) > 3
    mixed, _ = packed_oracle("llama", "int8", "mixed")
    assert len(load_weights(Loadable(mixed), CPU).layers[0].qkv.parts) == 3


def test_models_share_what_is_equal() -> None:
    packed, _ = packed_oracle("llama", "int8")
    one, two = (load_weights(Loadable(packed, cache_key="digest"), CPU) for _ in range(2))
    assert two.embedding is one.embedding
    assert two.head is one.head
    assert load_weights(Loadable(packed), CPU).head is not one.head
    tokens = torch.tensor([5, 0, VOCAB - 1, 5])
    want = expand(one.embedding)[tokens]
    assert torch.equal(one.embed(tokens), want)


# --- keys and values --------------------------------------------------------------------------


def test_the_pool_grows_and_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_TOKENS", KV_BLOCK)
    packed, _ = packed_oracle("qwen2", "int8")
    small = exact("cpu", packed)
    monkeypatch.undo()
    large = exact("cpu", packed)
    ids = ids_of(200)
    found = []
    for backend in (small, large):
        kv = backend.kv_open()
        parts = [backend.logits(kv, i, ids[i : i + 50]) for i in range(0, 200, 50)]
        found.append(np.concatenate(parts))
        assert backend.resident_bytes == backend._model.weights.nbytes + 4 * (
            KV_BLOCK * backend.kv_bytes_per_token
        )
        backend.kv_close(kv)
        assert backend.resident_bytes == backend._model.weights.nbytes
    np.testing.assert_array_equal(*found)
    assert small._pool.generation > large._pool.generation == 0


def test_an_engine_on_a_card_has_its_room_and_no_other() -> None:
    packed, _ = packed_oracle("qwen2", "int8")
    block = KV_BLOCK * exact("cpu", packed).kv_bytes_per_token
    backend = CudaBackend(
        Loadable(packed), device="cpu", dtype="float32", threads=1, kv_room=6 * block
    )
    engine = local_engine(backend, tokenizer(), context_length=200, kv_tokens=100_000)
    assert engine.on_card
    assert engine.kv_budget == 6 * block
    engine.kv_budget = 99 * block
    assert engine.kv_budget == 6 * block
    room = KvRoom(50 * block)
    engine.share_kv(room)
    engine.add(Request("r", tuple(range(180)), SamplingParams(max_tokens=2, ignore_eos=True)))
    while engine.has_work():
        engine.step()
    assert room.charged == 0
    assert backend._pool.nbytes == 3 * block  # kept
    engine.close()


@pytest.mark.skipif(not INTERPRETED, reason="only there widths are exact without a GPU")
def test_guesses_change_nothing_whatever_runs_beside_it() -> None:
    packed, _ = packed_oracle("qwen2", "int8", "8:16", num_hidden_layers=1)
    params = SamplingParams(max_tokens=5, ignore_eos=True)
    texts, stats = [], None
    for speculation in ("off", "ngram"):
        scripts = {"r": texts[0]} if texts else {}
        engine = local_engine(
            exact("cpu", packed),
            tokenizer(),
            context_length=64,
            proposers=[Scripted(scripts, 256, right=0.8, seed=3)],
            pace=Eager(),
        )
        engine.add(Request("r", tuple(range(9)), params, speculation=speculation))
        tokens: list[int] = []
        while engine.has_work():
            tokens += [token for event in engine.step() for token in event.tokens]
        texts.append(tokens)
        stats = engine.speculation.sources.get("ngram")
    assert texts[0] == texts[1]
    assert stats is not None and stats.accepted > 0


# --- steps ------------------------------------------------------------------------------------


def draw(ids: np.ndarray, **params: Any) -> Draw:
    return Draw(SamplingParams(**params), ids, len(ids), 0.5)


def test_steps_of_a_few_sizes_serve_all() -> None:
    packed, _ = packed_oracle("qwen2", "int8")
    backend = exact("cpu", packed)
    ids = ids_of(30)
    slabs = [backend.kv_open() for _ in range(11)]
    backend.step([Chunk(kv, 0, ids[:20]) for kv in slabs])
    assert backend._steps.sizes == []  # prompts
    for count in (1, 2, 3, 5, 8, 11):
        chunks = [Chunk(kv, 20, ids[20:21], (draw(ids[:21]),)) for kv in slabs[:count]]
        choices = backend.step(chunks)
        assert len(set(choices)) == 1  # they all say the same
    assert backend._steps.sizes == [(1, 8), (2, 8), (4, 8), (8, 8)]


def test_greedy_and_drawn_rows_in_one_step_and_logits_without_order() -> None:
    packed, _ = packed_oracle("qwen2", "int8")
    backend = exact("cpu", packed)
    ids = ids_of(10)
    a, b, c = (backend.kv_open() for _ in range(3))
    plain = draw(ids[:9])
    sampled = draw(ids[:9], temperature=0.8, logprobs=1)
    forced = draw(ids, logit_bias=((3, 1e4),))
    (one, two), (three,), none = backend.step(
        [Chunk(a, 0, ids, (plain, sampled)), Chunk(b, 0, ids, (forced,)), Chunk(c, 0, ids)]
    )
    assert isinstance(one, Choice) and one.logprob is None
    assert isinstance(two, Choice) and two.logprob is not None
    assert isinstance(three, Choice) and three.token == 3
    assert none == ()
    broken = packed_oracle("qwen2", "bf16")[0]
    broken.vectors["model.norm.weight"] = np.full(32, np.nan, np.float32)
    backend = exact("cpu", broken)
    ((first, second),) = backend.step(
        [Chunk(backend.kv_open(), 0, ids, (plain, draw(ids, temperature=1.0)))]
    )
    assert isinstance(first, LogitsError)
    assert isinstance(second, LogitsError)


@pytest.mark.skipif(torch.cuda.is_available(), reason="capturing does not fail here")
def test_where_capturing_fails_the_step_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    packed, _ = packed_oracle("qwen2", "int8")
    ids = ids_of(12)
    results = []
    for captures in (False, True):
        backend = exact("cpu", packed)
        backend._steps.captures = captures  # on a processor it cannot be
        kv = backend.kv_open()
        with caplog.at_level(logging.WARNING, "subllm.engine"):
            results.append([backend.logits(kv, i, ids[i : i + 3]) for i in range(0, 12, 3)])
        assert not backend._steps.captures
    np.testing.assert_array_equal(*results)
    (line,) = caplog.messages
    assert line.startswith("steps are not captured, which is slower: ")


@pytest.mark.skipif(not INTERPRETED, reason="plain torch chooses by shape; set TRITON_INTERPRET=1")
def test_a_row_is_the_same_whatever_runs_beside_it() -> None:
    packed, _ = packed_oracle("qwen2", "int8", "8:16", num_hidden_layers=2)
    backend = exact("cpu", packed)
    assert backend.exact_widths
    ids = ids_of(26)
    found = []
    for width in (1, 3, 9):  # the last in two groups
        kv = backend.kv_open()
        backend.logits(kv, 0, ids[:17])
        parts = [backend.logits(kv, i, ids[i : i + width]) for i in range(17, 26, width)]
        found.append(np.concatenate(parts))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="has no CUDA device")
def test_captured_steps_say_what_uncaptured_ones_do() -> None:
    packed, _ = packed_oracle("qwen2", "int8", "8:16")
    ids = ids_of(150)
    results = []
    for captures in (True, False):
        backend = exact("cuda", packed)
        backend._steps.captures = captures
        backend._steps._steps.clear()
        kv = backend.kv_open()
        backend.logits(kv, 0, ids[:100])
        results.append([backend.logits(kv, i, ids[i : i + 1]) for i in range(100, 150)])
        assert backend._steps.captures == captures
    np.testing.assert_array_equal(*results)


# --- bad input, and from a store ----------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"kv": 99},
        {"kv": "x"},
        {"start": -1},
        {"start": 1},
        {"start": None},
        {"start": 250},
        {"tokens": np.empty(0, np.int32)},
        {"tokens": np.array([VOCAB], np.int32)},
        {"tokens": np.array([-1], np.int32)},
        {"tokens": np.array([1.5])},
        {"tokens": np.array([2**40])},
        {"tokens": np.zeros((2, 2), np.int32)},
        {"draws": (draw(np.zeros(3, np.int32)),) * 21},
    ],
    ids=str,
)
def test_a_bad_chunk_is_refused_and_changes_nothing(changes: dict[str, Any]) -> None:
    backend = CudaBackend(tiny_source(), device="cpu", dtype="float32", threads=1)
    good = Chunk(backend.kv_open(), 0, np.arange(20, dtype=np.int32))
    values = {"kv": backend.kv_open(), "start": 0, "tokens": good.tokens, **changes}
    if "start" in changes and values["start"] == 250:
        values["start"] = 4090
    with pytest.raises(BackendError):
        backend.step([good, Chunk(**values)])
    assert backend._pool.nbytes == 0
    with pytest.raises(BackendError, match="same slab"):
        backend.step([good, good])
    backend.step([good])
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.step([good])


def test_weights_of_another_shape_are_refused() -> None:
    given = source(oracle("llama"))
    given.tensors["model.layers.1.mlp.down_proj.weight"] = np.ones((32, 64), np.float32)
    with pytest.raises(WeightsError, match=r"layers\.1\.mlp\.down_proj"):
        exact("cpu", PackedMemory(given, "int8"))


def test_from_a_store(tmp_path: Path) -> None:
    store = store_model(tmp_path / "store", packed_oracle("qwen2", "int8", "8:16")[0])
    engine = load_engine(store, NAME, computing=Computing(backend="cuda", device="cpu", threads=1))
    assert isinstance(engine._backend, CudaBackend)
    assert not engine.on_card
    assert engine.kv_budget > 0
    engine.close()
