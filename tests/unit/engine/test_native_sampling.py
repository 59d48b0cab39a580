"""Sampling in the native core against the numpy oracle that defines it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from oracles.allowed_draws import PARAMS, SHARES, check_allowed
from oracles.draws import CHANGES, FILTERS, VOCAB, draw_of, logits_of

from subllm.engine import sampler
from subllm.engine.backend import Draw
from subllm.engine.backends.native.backend import pack_draw
from subllm.engine.request import SamplingParams
from subllm.errors import BackendError, LogitsError
from subllm.kernels import native

UNIFORMS = (0.0, 0.3, 0.77, 0.999, 1 - 2**-53)


def sample(logits: np.ndarray, draw: Draw) -> int:
    token = native.core().sample(logits, pack_draw(draw))
    if token is None:  # as the backend takes it
        raise LogitsError
    return int(token)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 40.0])
@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_filters_and_draws_equal_the_oracle(filters: dict[str, Any], temperature: float) -> None:
    for seed in range(3):
        logits = logits_of(seed)
        # Numbers right at the edges between two tokens of the kept ones, too.
        params = SamplingParams(temperature=temperature, **filters)
        mass = np.cumsum(sampler.kept(logits, params)[1])
        edges = [float(mass[len(mass) * i // 4] / mass[-1]) for i in range(4)]
        inside = [edge * (1 + sign * 1e-9) for edge in edges for sign in (1, -1)]
        for uniform in (*UNIFORMS, *inside):
            if uniform < 1:
                draw = draw_of(uniform, temperature=temperature, **filters)
                assert sample(logits, draw) == sampler.sample(logits, draw)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_bias_and_penalties_equal_the_oracle(changes: dict[str, Any]) -> None:
    """Greedy and drawn, with spreads so small that the changes decide."""
    for seed in range(10):
        logits = logits_of(seed, spread=0.3)
        history = draw_of(seed=seed).history
        logits[history[::3]] = logits.max()  # else penalties would not meet the best
        for params in (changes, {**changes, "temperature": 0.3}):
            for uniform in UNIFORMS:
                draw = draw_of(uniform, seed, **params)
                assert sample(logits, draw) == sampler.sample(logits, draw)
        plain = draw_of(0.3, seed, temperature=0.3)
        changed = draw_of(0.3, seed, temperature=0.3, **changes)
        if "logit_bias" not in changes:
            assert sampler.sample(logits, plain) != sampler.sample(logits, changed)


@pytest.mark.parametrize("temperature", [1e-30, 1e-307, 1e-308, 5e-324])
@pytest.mark.parametrize("filters", [{}, {"top_k": 40}, {"top_p": 0.9}, {"min_p": 0.1}], ids=str)
def test_the_smallest_temperatures_draw_among_the_best(
    filters: dict[str, Any], temperature: float
) -> None:
    for seed in range(3):
        logits = logits_of(seed)
        best = np.flatnonzero(logits == logits.max())
        for uniform in UNIFORMS:
            draw = draw_of(uniform, temperature=temperature, **filters)
            assert sample(logits, draw) == sampler.sample(logits, draw)
            assert sample(logits, draw) in best


def test_greedy_takes_the_first_of_equals() -> None:
    for size in (1, 3, 17, 64, 65, 1000, 1001):
        logits = np.full(size, -2.0, np.float32)
        assert sample(logits, Draw(SamplingParams(), np.empty(0, np.int32), 0, 0.0)) == 0
        for best in range(0, size, 13):
            logits[best] = logits[-1] = 1.0
            assert sample(logits, Draw(SamplingParams(), np.empty(0, np.int32), 0, 0.0)) == best
            logits[best] = -2.0


def test_zeros_of_both_signs_are_equal() -> None:
    logits = np.array([-1.0, -0.0, 0.0, -0.0], np.float32)
    draw = Draw(SamplingParams(temperature=1.0, top_k=2), np.empty(0, np.int32), 0, 0.6)
    assert sample(logits, draw) == sampler.sample(logits, draw) == 2


@pytest.mark.parametrize("top", [0, 1, 5, 700, VOCAB])
def test_logprobs_are_of_the_given_logits(top: int) -> None:
    for seed in range(3):
        logits = logits_of(seed)
        wide = logits.astype(np.float64)
        want = wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())
        token, logprob, best = native.core().logprob(logits, 17, top)
        assert token == 17
        assert logprob == pytest.approx(want[17], abs=1e-9)
        assert [t for t, _ in best] == np.argsort(-logits, kind="stable")[:top].tolist()
        np.testing.assert_allclose([v for _, v in best], want[[t for t, _ in best]], atol=1e-9)


def test_logits_without_order_choose_nothing() -> None:
    core = native.core()
    nothing = np.full(100, np.nan, np.float32)
    for logits in (nothing, np.full(100, -np.inf, np.float32), np.float32([1, np.inf, 2])):
        for params in (SamplingParams(), SamplingParams(temperature=1.0, top_k=3)):
            draw = Draw(params, np.empty(0, np.int32), 0, 0.5)
            assert core.sample(logits, pack_draw(draw)) is None
            with pytest.raises(LogitsError, match="not finite"):
                sampler.sample(logits, draw)
        assert core.logprob(logits, 0, 5) is None
    some = logits_of(0)
    some[::2] = np.nan
    for params in ({}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 5000}):
        draw = draw_of(**params)
        assert sample(some, draw) == sampler.sample(some, draw)
        assert sample(some, draw) % 2 == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 1.5),
        ("min_p", float("nan")),
        ("repetition_penalty", 0.0),
        ("presence_penalty", float("inf")),
        ("frequency_penalty", float("nan")),
        ("logit_bias", ((VOCAB, 1.0),)),
        ("logit_bias", ((-1, 1.0),)),
        ("logit_bias", ((1, float("inf")),)),
        ("logprobs", VOCAB + 1),
        ("logprobs", -3),
    ],
)
def test_values_out_of_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        sample(logits_of(0), draw_of(**{field: value}))


def test_draws_out_of_range_are_refused() -> None:
    logits, plain = logits_of(0), SamplingParams(temperature=1.0)
    history = np.arange(5, dtype=np.int32)
    for draw in (
        Draw(plain, history, 2, 1.0),
        Draw(plain, history, 2, -0.1),
        Draw(plain, history, 6, 0.5),
        Draw(plain, history, -1, 0.5),
        Draw(plain, history + VOCAB, 2, 0.5),
        Draw(plain, history - 1, 2, 0.5),
    ):
        with pytest.raises(ValueError, match="out of range"):
            sample(logits, draw)
    with pytest.raises(BackendError):
        sample(logits, Draw(plain, history.astype(np.float32), 2, 0.5))  # type: ignore[arg-type]
    with pytest.raises((ValueError, TypeError)):
        native.core().sample(np.empty(0, np.float32), pack_draw(Draw(plain, history, 2, 0.5)))
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        native.core().sample(logits, (1, 2, 3))


def test_a_large_vocabulary_costs_little() -> None:
    """Beside a sort of everything, measured in turn, by the time that this thread computed."""
    logits = logits_of(5, size=152_000)
    empty = np.empty(0, np.int32)
    greedy = Draw(SamplingParams(), empty, 0, 0.5)
    drawn = Draw(SamplingParams(temperature=0.7, top_p=0.9), empty, 0, 0.5)

    def spent(work: Callable[[], object]) -> float:
        start = time.thread_time()
        work()
        return time.thread_time() - start

    rounds = [
        (
            spent(lambda: np.argsort(-logits, kind="stable")),
            spent(lambda: sample(logits, greedy)),
            spent(lambda: sample(logits, drawn)),
        )
        for _ in range(15)
    ]
    sort, one, other = (min(times) for times in zip(*rounds, strict=True))
    print(f"sort {sort * 1e3:.2f} ms, greedy {one / sort:.3f}, drawn {other / sort:.3f} of it")
    assert one < sort / 10
    assert other < sort / 2


@pytest.mark.parametrize("params", PARAMS, ids=str)
@pytest.mark.parametrize("share", SHARES)
def test_only_what_is_allowed_is_drawn(params: dict[str, Any], share: float) -> None:
    for seed in range(3):
        check_allowed(sample, logits_of(seed), draw_of(0.7, seed, **params), share, seed)
