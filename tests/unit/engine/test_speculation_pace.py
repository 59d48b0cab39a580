"""Speculation pays, or stays away: the engine on backends whose steps take a known time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from local_engines import local_engine
from oracles.timed_backend import EmptySlabs
from oracles.tiny_models import tokenizer

from subllm.engine.backend import Choice, Choices, Chunk
from subllm.engine.draft import Draft
from subllm.engine.engine import LocalEngine
from subllm.engine.params import SamplingParams, TokenLogprob
from subllm.engine.request import Request
from subllm.engine.speculative.costs import FRESH, StepCosts
from subllm.engine.speculative.drafting import PIECE

VOCAB = 259
CONTEXT = 4096


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TimedBackend(EmptySlabs):
    """Draws what `text` says follows so many tokens of a completion, with a certainty; a step
    over n tokens takes `cost(n)`."""

    vocab_size = VOCAB
    kv_bytes_per_token = 4
    kv_shares = False

    def __init__(
        self,
        clock: Clock,
        cost: Callable[[int], float],
        text: Callable[[int], tuple[int, float]],
    ) -> None:
        self._clock, self._cost, self._text = clock, cost, text
        self.resident_bytes = round(1000 * cost(1))  # it reads its weights once a step
        self.widths: list[int] = []

    def step(self, chunks: Sequence[Chunk]) -> list[Choices]:
        self.widths.append(sum(len(chunk.tokens) for chunk in chunks))
        self._clock.now += self._cost(self.widths[-1])
        return [tuple(self._choice(draw) for draw in chunk.draws) for chunk in chunks]

    def _choice(self, draw: Any) -> Choice:
        token, certainty = self._text(len(draw.history) - draw.prompt_length)
        logprob = TokenLogprob(token, certainty) if draw.estimate else None
        return Choice(token, logprob)


def text_of(seed: int) -> list[int]:
    """Nothing of it repeats more than by chance."""
    rng = random.Random(seed)
    return [rng.randrange(256) for _ in range(CONTEXT)]


def measured(
    speculation: Any,
    slope: float,
    *,
    drafting: float | None = None,
    right: float = 0.0,
    prompt: int = 64,
    tokens: int = 400,
    requests: int = 4,
    at_once: int = 1,
    swap: bool = False,
    **more: Any,
) -> tuple[float, LocalEngine]:
    """Seconds of decoding `requests` completions of `tokens` one after another; a plain step
    takes 1 second and every further token `slope`; a step of the draft takes `drafting`, and
    draws the right token with the chance `right`, the more certain, the likelier. `swap`: it is
    attached anew for every request."""
    clock, text, rng = Clock(), text_of(1), random.Random(2)
    wrong = [rng.random() >= right for _ in text]

    def guess(i: int) -> tuple[int, float]:
        certain = -0.05 if rng.random() < (0.2 if wrong[i] else 0.9) else -1.5
        return (text[i] + wrong[i]) % 256, certain

    target = TimedBackend(clock, lambda n: 1 + slope * (n - 1), lambda i: (text[i], 0.0))

    def small() -> Draft | None:
        if drafting is None:
            return None
        backend = TimedBackend(clock, lambda n: drafting * (1 + 0.05 * (n - 1)), guess)
        return Draft("small", "", backend, tokenizer())  # type: ignore[arg-type]

    engine = local_engine(
        target,  # type: ignore[arg-type]
        tokenizer(),
        name="timed",
        context_length=CONTEXT,
        kv_tokens=2 * CONTEXT,
        prefill_chunk=CONTEXT,
        keep_prefixes=0,
        draft=small(),
        clock=clock,
    )
    spent = 0.0
    for i in range(0, requests, at_once):
        if swap:  # another one comes and goes, as for a request in another language
            engine.set_draft(None)
            engine.set_draft(small())
        for j in range(at_once):
            ids = tuple(text_of(100 + i + j)[:prompt])
            params = SamplingParams(max_tokens=tokens, ignore_eos=True)
            engine.add(Request(f"{i + j}", ids, params, speculation=speculation, **more))
        engine.step()
        started = clock.now
        while engine.has_work():
            engine.step()
        spent += clock.now - started
    return spent, engine


@pytest.mark.parametrize("slope", [0.02, 0.1, 0.3, 1.0])
@pytest.mark.parametrize(
    "case",
    [
        {},
        {"prediction": tuple(text_of(9)[:300])},
        {"session": "s"},
        {"drafting": 0.3, "right": 0.0},
        {"drafting": 0.3, "right": 0.3},
        {"drafting": 0.9, "right": 0.8},
        {"drafting": 0.3, "right": 0.1, "prompt": 1500},
        {"drafting": 0.3, "right": 0.95, "tokens": 24, "prompt": 1500, "requests": 60},
        {"drafting": 0.3, "right": 0.0, "at_once": 2},
        {"drafting": 0.3, "right": 0.0, "prompt": 1500, "swap": True},
        {"drafting": 0.3, "right": 0.9, "at_once": 4},
    ],
    ids=str,
)
def test_it_never_costs_more_than_three_percent(case: dict[str, Any], slope: float) -> None:
    case = {"requests": 12, **case}
    plain, _ = measured("off", slope, **case)
    spent, _ = measured("auto", slope, **case)
    assert spent < plain / 0.97


@pytest.mark.parametrize(
    ("slope", "drafting", "right", "gain"),
    [(0.05, 0.1, 0.9, 2.6), (0.05, 0.3, 0.9, 1.6), (0.15, 0.3, 0.8, 1.15), (0.02, 0.05, 0.7, 1.9)],
)
def test_a_draft_that_pays_is_used(
    slope: float, drafting: float, right: float, gain: float
) -> None:
    plain, _ = measured("off", slope, drafting=drafting, right=right)
    spent, engine = measured("auto", slope, drafting=drafting, right=right)
    assert plain / spent > gain
    counts = engine.speculation.sources["draft"]
    assert counts.accepted > 0.4 * counts.drafted


def test_it_catches_up_with_a_long_prompt_where_that_pays() -> None:
    case = {"drafting": 0.2, "right": 0.9, "prompt": 1500}
    plain, _ = measured("off", 0.1, **case)
    spent, engine = measured("auto", 0.1, **case)
    assert plain / spent > 1.6
    assert max(engine._speculator._draft._backend.widths) == PIECE  # type: ignore[union-attr, attr-defined]


def test_what_the_client_expects_comes_at_once() -> None:
    text = text_of(1)
    edited = (*text[:150], *text[170:300], 7, 7, *text[301:400])  # parts are missing, or new
    plain, _ = measured("off", 0.1, requests=2)
    spent, engine = measured("auto", 0.1, requests=2, prediction=edited)
    assert plain / spent > 4
    assert engine.speculation.sources["ngram"].accepted > 650


def test_a_session_remembers_its_completions() -> None:
    plain, _ = measured("off", 0.1, requests=6)
    spent, _ = measured("auto", 0.1, requests=6, session="s")
    none, _ = measured("auto", 0.1, requests=6)
    assert plain / spent > 3
    assert none == pytest.approx(plain, rel=0.03)


def test_off_is_off() -> None:
    _, engine = measured("off", 0.01, session="s", drafting=0.01, right=1.0)
    assert engine.speculation.sources == {}
    assert set(engine._backend.widths) == {64, 1}  # type: ignore[attr-defined]


def test_costs_of_steps_are_medians_and_lines_between() -> None:
    costs = StepCosts(slope=0.2)
    assert costs.seconds(1) is None
    assert costs.age(1) is None
    for seconds in (1.0, 1.1, 9.0, 1.0, 1.05):
        costs.observe(1, seconds)
    assert costs.seconds(1) == 1.05
    assert costs.seconds(6) == pytest.approx(2.1)  # a belief
    costs.observe(5, 1.45)
    assert costs.seconds(3) == pytest.approx(1.25)
    assert costs.seconds(9) == pytest.approx(1.85)
    costs.observe(4, 30.0)  # a hiccup: it cannot cost more than five
    assert costs.seconds(4) == pytest.approx(1.45)
    costs.observe(9, 3.0)
    assert costs.seconds(7) == pytest.approx(1.45 + (3.0 - 1.45) / 2)
    assert costs.age(5) == 2
    for _ in range(FRESH):
        costs.observe(1, 2.0)
    assert costs.seconds(9) == pytest.approx(2.0 * 2.6)
