"""Measuring: on a backend whose steps take a known time, and bytes counted by hand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from local_engines import local_engine
from oracles.packed_models import NAME, packed_oracle, store_model
from oracles.timed_backend import EmptySlabs
from oracles.tiny_models import tokenizer

from subllm.engine.backend import Choice, Choices, Chunk
from subllm.engine.bandwidth import read_bandwidth, weight_bytes_per_token
from subllm.engine.compare import measure_models
from subllm.engine.computing import Computing
from subllm.engine.measure import (
    SEQUENCES,
    Probe,
    Round,
    Series,
    kv_tokens,
    longest_sequence,
)
from subllm.errors import ContextLengthError, EngineError, UsageError
from subllm.models.store.model_files import open_model

STEP, TOKEN = 0.5, 0.01


class TimedBackend(EmptySlabs):
    """A step takes STEP seconds and TOKEN for each of its tokens, by its own clock."""

    vocab_size = 200
    resident_bytes = 0
    kv_bytes_per_token = 1
    kv_shares = False

    def __init__(self) -> None:
        self.now = 0.0
        self.steps: list[list[int]] = []

    def clock(self) -> float:
        return self.now

    def step(self, chunks: Sequence[Chunk]) -> list[Choices]:
        self.steps.append([len(chunk.tokens) for chunk in chunks])
        self.now += STEP + TOKEN * sum(self.steps[-1])
        return [tuple(Choice(7) for _ in chunk.draws) for chunk in chunks]


def probe_of(backend: TimedBackend, vocab_size: int = 200, **sizes: int) -> Probe:
    sizes = {"prompt_tokens": 100, "tokens": 32, **sizes}
    prompt_tokens, tokens = sizes["prompt_tokens"], sizes["tokens"]
    engine = local_engine(
        backend,
        tokenizer(),
        name="timed",
        context_length=longest_sequence(prompt_tokens, tokens),
        kv_tokens=kv_tokens(prompt_tokens, tokens),
    )
    return Probe(engine, vocab_size, clock=backend.clock, **sizes)


def test_a_round_is_what_the_steps_took() -> None:
    backend = TimedBackend()
    probe = probe_of(backend, prompt_tokens=100, tokens=32)
    probe.warm_up()
    for _ in range(3):
        measured = probe.round()
        assert measured == Round(
            prefill=pytest.approx(100 / 1.5),
            decode=pytest.approx(1 / 0.51),
            batch_decode=pytest.approx(SEQUENCES / 0.58),
            first_token=pytest.approx(0.66),
        )


def test_work_is_what_was_asked_for() -> None:
    backend = TimedBackend()
    probe = probe_of(backend, prompt_tokens=600, tokens=10)
    assert probe.prefill() == pytest.approx(600 / 7.0)
    assert backend.steps == [[512], [88]]
    backend.steps.clear()
    probe.decode()
    assert backend.steps == [[64], *[[1]] * 9]
    backend.steps.clear()
    probe.batch_decode()
    assert backend.steps == [[16] * SEQUENCES, *[[1] * SEQUENCES] * 9]
    backend.steps.clear()
    probe.first_token()
    assert backend.steps == [[16]]


def test_a_reused_prefix_is_an_error_and_no_figure() -> None:
    probe = probe_of(TimedBackend(), vocab_size=1)
    probe.prefill()
    with pytest.raises(EngineError, match="served from memory"):
        probe.prefill()


def test_sizes_that_cannot_be_measured() -> None:
    with pytest.raises(UsageError, match="at least 2"):
        probe_of(TimedBackend(), tokens=1)
    engine = local_engine(TimedBackend(), tokenizer(), name="timed", context_length=64)
    with pytest.raises(ContextLengthError):
        Probe(engine, 200, prompt_tokens=64).prefill()


def test_series() -> None:
    series = Series((10.0, 14.0, 11.0, 100.0, 9.0))
    assert series.median == 11.0
    assert series.spread == pytest.approx((100 - 9) / 2 / 11)
    assert Series((3.0,)).spread == 0.0


@pytest.mark.parametrize("family", ["llama", "qwen2"])  # a head of its own, and a tied one
def test_bytes_of_a_token(tmp_path: Path, family: str) -> None:
    packed, _ = packed_oracle(family, "int8", "8:16")
    tied = packed.spec.tied_head
    assert tied == (family == "qwen2")
    with open_model(store_model(tmp_path / "home", packed), NAME) as files:
        counted = weight_bytes_per_token(files)
    inner = sum(packed.tensor(name).nbytes for name in packed.packed if ".layers." in name)
    embedding = packed.tensor(packed.spec.embedding_name).nbytes
    vectors = sum(4 * vector.size for vector in packed.vectors.values())
    if tied:
        assert counted == inner + embedding + vectors
    else:
        head = packed.tensor(packed.spec.head_name).nbytes
        row = counted - inner - head - vectors
        assert row - 1 < embedding / packed.spec.vocab_size <= row


def test_bandwidth_is_that_of_real_reads() -> None:
    """A buffer within the caches cannot be read faster than 2 TB/s, and the whole takes as
    long as its runs at least."""
    size = 1 << 20
    start = time.perf_counter()
    rate = read_bandwidth(2, size)
    seconds = time.perf_counter() - start
    assert 1e7 < rate < 2e12
    assert 36 * size / rate <= seconds


def test_models_are_measured_in_turn(tmp_path: Path) -> None:
    packed, _ = packed_oracle("qwen2", "int8", "8:16")
    store = store_model(tmp_path / "home", packed)
    heard: list[int] = []
    speeds = measure_models(
        store, [NAME, NAME], prompt_tokens=32, tokens=4, repeat=2,
        computing=Computing(backend="native", threads=1), on_round=heard.append,
    )  # fmt: skip
    assert heard == [1, 2]
    assert [len(speed.decode.samples) for speed in speeds] == [2, 2]
    for speed in speeds:
        assert speed.digest == store.resolve(NAME)
        assert speed.weight_bytes is not None
        assert speed.bytes_per_second == speed.weight_bytes * speed.decode.median
        assert min(speed.prefill.samples + speed.batch_decode.samples) > 0
        assert min(speed.first_token.samples) > 0


def test_bytes_of_unpacked_weights_are_not_claimed(tmp_path: Path) -> None:
    packed, _ = packed_oracle("qwen2", "int8", "8:16")
    store = store_model(tmp_path / "home", packed)
    (speed,) = measure_models(
        store,
        [NAME],
        prompt_tokens=8,
        tokens=2,
        repeat=1,
        computing=Computing(backend="torch", device="cpu"),
    )
    assert (speed.weight_bytes, speed.bytes_per_second) == (None, None)
