"""The native backend behind the engine, from a store, and against bad input."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from local_engines import local_engine
from oracles.packed_models import NAME, PackedMemory, packed_oracle, store_model
from oracles.tiny_models import VOCAB, tokenizer

from subllm.engine.backend import KV_BLOCK, Choice, Chunk, Draw
from subllm.engine.backends.native import NativeBackend
from subllm.engine.computing import Computing
from subllm.engine.engine import LocalEngine
from subllm.engine.loader import load_engine
from subllm.engine.request import Request, SamplingParams
from subllm.errors import BackendError, EngineError, WeightsError
from subllm.kernels.sparsity.packing import pack
from subllm.models.store.store import Store

PACKED, REFERENCE = packed_oracle("qwen2", "int8", "8:16")
PROMPT = tuple(np.random.default_rng(0).integers(0, 256, 20).tolist())


def exact_backend() -> NativeBackend:
    return NativeBackend(PACKED, kv="float32", exact=True)


def greedy_of_reference(prompt: tuple[int, ...], count: int) -> list[int]:
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(REFERENCE(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def tokens_from(engine: LocalEngine, *requests: Request) -> dict[str, list[int]]:
    for request in requests:
        engine.add(request)
    tokens: dict[str, list[int]] = {request.id: [] for request in requests}
    while engine.has_work():
        for event in engine.step():
            tokens[event.request_id] += event.tokens
    return tokens


def request(index: int, length: int, **params: Any) -> Request:
    prompt = tuple(np.random.default_rng(index).integers(0, 256, length).tolist())
    return Request(f"{index}", prompt, SamplingParams(ignore_eos=True, **params))


def engine_on(backend: NativeBackend, **options: Any) -> LocalEngine:
    return local_engine(backend, tokenizer(), context_length=256, **options)


def test_the_engine_answers_as_transformers_does() -> None:
    engine = engine_on(exact_backend())
    params = SamplingParams(max_tokens=30, ignore_eos=True)
    (tokens,) = tokens_from(engine, Request("r", PROMPT, params)).values()
    assert tokens == greedy_of_reference(PROMPT, 30)


def test_a_batch_changes_nothing() -> None:
    """Prefill and decode mixed, shared prefixes, little memory: with weights and activations
    of 8 bits the products are exact, and attention looks at each sequence alone."""
    requests = [
        request(i, 5 + 23 * i, max_tokens=20 + i, temperature=0.9 * (i % 2), seed=i)
        for i in range(6)
    ]
    alone = {}
    for each in requests:
        alone |= tokens_from(engine_on(NativeBackend(PACKED)), each)
    engine = engine_on(NativeBackend(PACKED), max_batch=4, prefill_chunk=16)
    assert tokens_from(engine, *requests) == alone


def test_score_equals_transformers() -> None:
    tokens = request(4, 150).prompt
    with torch.no_grad():
        want = REFERENCE(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
    result = engine_on(exact_backend(), prefill_chunk=64).score(tokens, top=3)
    assert result[0] is None
    for i, entry in enumerate(result[1:], start=1):
        assert entry is not None
        assert entry.token == tokens[i]
        assert entry.logprob == pytest.approx(float(want[i - 1, tokens[i]]), abs=1e-4)
        assert [token for token, _ in entry.top] == want[i - 1].topk(3).indices.tolist()


def test_logprobs_of_drawn_tokens() -> None:
    backend = exact_backend()
    ids = np.array(PROMPT, np.int32)
    bias = ((7, 1000.0),)
    params = SamplingParams(logit_bias=bias, logprobs=4)
    chunk = Chunk(backend.kv_open(), 0, ids, (Draw(params, ids, len(ids), 0.0),))
    ((choice,),) = backend.step([chunk])
    with torch.no_grad():
        want = REFERENCE(torch.tensor([PROMPT])).logits[0, -1].double().log_softmax(-1)
    assert isinstance(choice, Choice)
    assert choice.token == 7
    assert choice.logprob is not None
    assert choice.logprob.logprob == pytest.approx(float(want[7]), abs=1e-4)  # without bias
    assert [token for token, _ in choice.logprob.top] == want.topk(4).indices.tolist()


# --- from a store ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return store_model(tmp_path_factory.mktemp("native") / "store", PACKED)


def test_the_loader_takes_the_native_backend_on_the_cpu(store: Store) -> None:
    for options in ({}, {"device": "cpu"}, {"backend": "native"}):
        engine = load_engine(store, NAME, computing=Computing(**options))
        assert isinstance(engine._backend, NativeBackend)
        engine.close()
    engine = load_engine(store, NAME, computing=Computing(backend="torch", device="cpu"))
    assert not isinstance(engine._backend, NativeBackend)
    with pytest.raises(BackendError, match="CPU"):
        load_engine(store, NAME, computing=Computing(backend="native", device="cuda"))
    with pytest.raises(BackendError, match="--backend native"):
        load_engine(store, NAME, computing=Computing(backend="torch", device="cpu", kv_type="int8"))
    small, large = (
        load_engine(store, NAME, computing=Computing(kv_type=kind))._backend
        for kind in ("int8", "bfloat16")
    )
    assert small.kv_bytes_per_token == large.kv_bytes_per_token * (8 + 16 + 8) // (2 * (8 + 16))


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None  # importing them fails
from pathlib import Path
from subllm.engine.computing import Computing
from subllm.engine.loader import load_engine
from subllm.engine.request import Request, SamplingParams
from subllm.models.store.store import Store

engine = load_engine(Store(Path(sys.argv[1])), sys.argv[2], computing=Computing(dtype="float32"))
prompt = tuple(int(token) for token in sys.argv[3].split(","))
engine.add(Request("r", prompt, SamplingParams(max_tokens=12, ignore_eos=True)))
tokens = []
while engine.has_work():
    for event in engine.step():
        tokens += event.tokens
print(*tokens)
"""


@pytest.mark.parametrize("isa", ["", "avx_vnni", "avx2", "scalar"])
def test_it_runs_without_torch_on_every_instruction_set(store: Store, isa: str) -> None:
    if isa and isa not in _isas():
        pytest.skip(f"this CPU does not run {isa}")
    command = [sys.executable, "-c", WITHOUT_TORCH, str(store.workspace.root), NAME]
    done = subprocess.run(
        [*command, ",".join(map(str, PROMPT))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SUBLLM_ISA": isa},
    )
    assert done.returncode == 0, done.stderr
    assert [int(token) for token in done.stdout.split()] == greedy_of_reference(PROMPT, 12)


def _isas() -> list[str]:
    from subllm.kernels import native

    return list(native.core().isas())


def own_memory() -> int:
    """Bytes of this process that are no file's."""
    info = psutil.Process().memory_info()
    return int(info.rss - getattr(info, "shared", 0))


def test_weights_stay_where_they_are_mapped(tmp_path: Path) -> None:
    """A model whose embedding alone has 32 MB: loading it and using a row takes little."""
    packed, _ = packed_oracle("llama", "bf16")
    rows = 512_000
    table = np.random.default_rng(0).normal(size=(rows, 32)).astype(np.float32)
    packed.packed["model.embed_tokens.weight"] = pack(table, None, "dense", "bf16")
    packed.packed["lm_head.weight"] = pack(table[:1000], None, "dense", "bf16")
    spec = packed.spec.to_dict() | {"vocab_size": rows}
    packed.spec = type(packed.spec).from_dict(spec)
    store = store_model(tmp_path / "store", packed)
    with pytest.raises(WeightsError, match=r"lm_head.weight has shape \(1000, 32\)"):
        load_engine(store, NAME)
    packed.spec = type(packed.spec).from_dict(spec | {"tied_head": True})
    store = store_model(tmp_path / "tied", packed)
    before = own_memory()
    engine = load_engine(store, NAME, computing=Computing(copy_weights=False))
    backend = engine._backend
    ids = np.array([rows - 1, 5], np.int32)
    kv = backend.kv_open()
    backend.step([Chunk(kv, 0, ids)])
    grown = own_memory() - before - backend.kv_bytes_per_token * KV_BLOCK
    assert backend.resident_bytes > 32 << 20
    assert grown < 8 << 20
    engine.close()


# --- bad input --------------------------------------------------------------------------------


def chunk(backend: NativeBackend, **changes: Any) -> Chunk:
    ids = np.array(PROMPT, np.int32)
    values: dict[str, Any] = {"kv": backend.kv_open(), "start": 0, "tokens": ids}
    return Chunk(**{**values, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"kv": 99},
        {"kv": -1},
        {"kv": "x"},
        {"kv": 2**70},
        {"start": -1},
        {"start": 1},
        {"start": None},
        {"tokens": np.empty(0, np.int32)},
        {"tokens": np.array([VOCAB], np.int32)},
        {"tokens": np.array([-1], np.int32)},
        {"tokens": np.array([1.5])},
        {"tokens": np.array([2**40])},
        {"tokens": np.zeros((2, 2), np.int32)},
        {"tokens": None},
        {"tokens": "abc"},
        {"draws": (Draw(SamplingParams(), np.zeros(3, np.int32), 1, 0.5),) * 21},
        {"draws": (Draw(SamplingParams(temperature=-1), np.zeros(3, np.int32), 1, 0.5),)},
        {"draws": (Draw(SamplingParams(), np.array([VOCAB], np.int32), 1, 0.5),)},
        {"draws": (Draw(SamplingParams(), np.zeros(3, np.int32), 4, 0.5),)},
        {"draws": (Draw(SamplingParams(top_k=2**70), np.zeros(3, np.int32), 1, 0.5),)},
    ],
    ids=str,
)
def test_a_bad_chunk_is_refused_and_changes_nothing(changes: dict[str, Any]) -> None:
    backend = NativeBackend(PACKED)
    good = chunk(backend)
    held = backend.resident_bytes
    with pytest.raises(EngineError):
        backend.step([good, chunk(backend, **changes)])
    assert backend.resident_bytes == held
    backend.step([good])


def test_what_else_is_refused() -> None:
    backend = NativeBackend(PACKED)
    good = chunk(backend)
    with pytest.raises(BackendError, match="two chunks"):
        backend.step([good, good])
    assert backend.step([]) == []
    backend.step([good])
    with pytest.raises(BackendError, match="holds 20 tokens"):
        backend.kv_fork(good.kv, 21)
    with pytest.raises(BackendError):
        backend.kv_fork(good.kv, -1)
    with pytest.raises(BackendError, match="holds 20 tokens"):
        backend.step([chunk(backend, kv=good.kv, start=21)])
    ids = np.array(PROMPT, np.int32)
    for start, targets, top in (
        (0, np.zeros(21, np.int32), 0),
        (0, np.array([VOCAB], np.int32), 0),
        (0, ids, -1),
        (0, ids, VOCAB + 1),
        (30, ids, 0),
    ):
        with pytest.raises(BackendError):
            backend.score(good.kv, start, ids, targets, top)
    backend.kv_close(good.kv)
    for use in (backend.kv_close, lambda kv: backend.kv_fork(kv, 0)):
        with pytest.raises(BackendError, match="does not exist"):
            use(good.kv)
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.kv_open()
    with pytest.raises(BackendError, match="closed"):
        backend.step([good])


def test_one_thread_at_a_time() -> None:
    backend = exact_backend()
    ids = np.arange(200, dtype=np.int32)
    failures: list[BackendError] = []
    barrier = threading.Barrier(2)

    def work() -> None:
        try:
            for _ in range(20):
                barrier.wait()
                backend.score(backend.kv_open(), 0, ids, ids, 0)
        except BackendError as error:
            failures.append(error)
            barrier.abort()
        except threading.BrokenBarrierError:
            pass

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures) == 1
    assert "another thread" in str(failures[0])


class _Broken(PackedMemory):
    """The tiny model with one tensor replaced."""

    def __init__(self, **tensors: Any) -> None:
        self.spec, self.vectors, self.packed = PACKED.spec, PACKED.vectors, dict(PACKED.packed)
        self.vectors = PACKED.vectors | {k: v for k, v in tensors.items() if v.ndim == 1}
        for name, matrix in tensors.items():
            if matrix.ndim == 2:
                self.packed[name] = pack(matrix, None, "dense", "int8")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.1.self_attn.q_proj.weight", (32, 31)),
        ("model.layers.2.mlp.down_proj.weight", (32, 64)),
        ("model.embed_tokens.weight", (VOCAB + 1, 32)),
        ("model.norm.weight", (31,)),
        ("model.layers.0.self_attn.k_proj.bias", (32,)),
    ],
)
def test_weights_of_another_shape_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(WeightsError, match=name):
        NativeBackend(_Broken(**{name: np.ones(shape, np.float32)}))


def test_unknown_options_are_refused() -> None:
    with pytest.raises(BackendError, match="float16"):
        NativeBackend(PACKED, kv="float16")  # type: ignore[arg-type]


def test_kernels_that_are_not_there_are_refused_before_a_step() -> None:
    """In a process of its own: the choice is made once."""
    script = (
        "from unit.engine.test_native_backend import exact_backend\n"
        "from subllm.errors import BackendError\n"
        "try:\n    exact_backend()\nexcept BackendError as error:\n    print(error)\n"
    )
    path = str(Path(__file__).parents[2])
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "SUBLLM_ISA": "potato", "PYTHONPATH": path},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "SUBLLM_ISA: there are no kernels named 'potato'" in ran.stdout
    assert "unset it" in ran.stdout
