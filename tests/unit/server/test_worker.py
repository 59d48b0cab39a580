"""The engine thread on real tiny engines: whatever is asked, in whatever order, each job gets
what an engine of its own would give, one last word, and leaves nothing behind."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.tiny import CPP, JAVA, PATIENCE, PYTHON, VOCAB, Engine, Shelf, shelf, until
from subllm.errors import ContextLengthError, EngineBusyError, EngineError, ServerError
from subllm.runtime.request import Request, SamplingParams
from subllm.server.jobs import (
    Failed,
    Generated,
    Job,
    JobEvent,
    ModelRef,
    ScoreWork,
    TokenScores,
)
from subllm.server.worker import EngineWorker

MODELS = (PYTHON, JAVA, CPP)


@dataclass
class Asked:
    """One job and what came of it."""

    job: Job
    events: list[JobEvent] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __call__(self, event: JobEvent) -> None:
        assert not self.over.is_set(), "there was a last word already"
        self.events.append(event)
        if not isinstance(event, Generated) or event.event.finish_reason is not None:
            self.over.set()

    @property
    def text(self) -> str:
        return "".join(event.event.text for event in self.events if isinstance(event, Generated))


def ask(number: int, model: str, work: Request | ScoreWork, version: str = "1") -> Asked:
    asked = Asked(Job(str(number), ModelRef(model, version), work, lambda event: None))
    asked.job.sink = asked
    return asked


def prompt_of(seed: int, length: int) -> tuple[int, ...]:
    return tuple((seed * 31 + i * (seed + 7)) % 256 for i in range(length))


def generate(number: int, model: str, seed: int, length: int, tokens: int) -> Asked:
    params = SamplingParams(max_tokens=tokens, ignore_eos=True)
    return ask(number, model, Request(str(number), prompt_of(seed, length), params))


@functools.cache
def alone(model: str, seed: int, length: int, tokens: int) -> str:
    engine = Engine(model)
    params = SamplingParams(max_tokens=tokens, ignore_eos=True)
    engine.add(Request("alone", prompt_of(seed, length), params))
    text = ""
    while engine.has_work():
        text += "".join(event.text for event in engine.step())
    return text


def worker_on(things: Shelf, **options: Any) -> EngineWorker:
    worker = EngineWorker(things.load, **options)
    worker.start()
    return worker


JOBS = st.tuples(
    st.sampled_from(MODELS),
    st.sampled_from(["generate", "generate", "generate", "score", "too long", "wrong"]),
    st.integers(0, 3),  # which text
    st.integers(1, 60),
    st.integers(1, 12),
    st.sampled_from([False, False, True]),  # given up
)


@settings(max_examples=40, deadline=None)
@given(
    jobs=st.lists(JOBS, min_size=1, max_size=10),
    engines=st.integers(1, 3),
    batch=st.integers(1, 3),
    limits=st.sampled_from([{}, {"step_tokens": 3}, {"kv_bytes": 1}, {"kv_bytes": 10**6}]),
)
def test_everybody_gets_what_is_theirs(
    jobs: list[tuple[str, str, int, int, int, bool]],
    engines: int,
    batch: int,
    limits: dict[str, int],
) -> None:
    things = shelf(max_batch=batch)
    worker = worker_on(things, max_engines=engines, **limits)
    asked: list[tuple[Asked, tuple[str, str, int, int, int, bool]]] = []
    try:
        for number, job in enumerate(jobs):
            model, kind, seed, length, tokens, given_up = job
            if kind == "score":
                one = ask(number, model, ScoreWork(prompt_of(seed, length)))
            elif kind == "too long":
                one = generate(number, model, seed, 300, tokens)
            else:
                one = generate(number, model, seed, length, tokens)
                if kind == "wrong":
                    one.job.work = Request(str(number), (1, VOCAB + 5), SamplingParams())
            asked.append((one, job))
            worker.submit(one.job)
            if given_up:
                worker.cancel(one.job)
        for one, (model, kind, seed, length, tokens, given_up) in asked:
            if given_up:
                continue
            assert one.over.wait(PATIENCE), "no last word"
            last = one.events[-1]
            if kind == "generate":
                assert isinstance(last, Generated)
                assert last.event.finish_reason == "length"
                assert one.text == alone(model, seed, length, tokens)
            elif kind == "score":
                assert isinstance(last, TokenScores)
                assert len(last.logprobs) == length
            else:
                assert isinstance(last, Failed)
                wanted = ContextLengthError if kind == "too long" else EngineError
                assert isinstance(last.error, wanted)
        until(lambda: worker.open == 0)
        assert len(worker.loaded) <= engines
    finally:
        worker.stop(PATIENCE)
    assert all(engine.closed for engine in things.engines)
    assert not any(engine.has_work() for engine in things.engines)
    assert worker.failure is None
    with pytest.raises(ServerError, match="shutting down"):
        worker.submit(generate(99, PYTHON, 0, 5, 5).job)


def test_models_wait_their_turn_and_nobody_waits_for_ever() -> None:
    """One engine fits: the busy one runs empty though more work for it keeps coming."""
    things = shelf(max_batch=1)
    worker = worker_on(things, max_engines=1)
    try:
        first = generate(0, PYTHON, 0, 5, 150)
        worker.submit(first.job)
        until(lambda: bool(things.engines) and things.engine(PYTHON).steps > 0)
        python = things.engine(PYTHON)
        python.hold_at = python.steps
        until(lambda: python.held)
        other = generate(1, JAVA, 1, 5, 3)
        worker.submit(other.job)
        later = [generate(2 + i, PYTHON, i, 5, 3) for i in range(3)]
        for one in later:
            worker.submit(one.job)
        python.gate.set()
        for one in (first, other, *later):
            assert one.over.wait(PATIENCE)
        assert [engine.name for engine in things.engines] == [PYTHON, JAVA, PYTHON]
        assert len(python.requests) == 1  # the later ones waited for Java
        assert other.text == alone(JAVA, 1, 5, 3)
    finally:
        worker.stop(PATIENCE)


def test_versions_of_a_name_are_different_models() -> None:
    things = shelf()
    worker = worker_on(things)
    try:
        for number, version in enumerate("1121"):
            one = ask(number, PYTHON, Request(str(number), (1, 2)), version)
            worker.submit(one.job)
            assert one.over.wait(PATIENCE)
        assert [engine.name for engine in things.engines] == [PYTHON] * 3
        assert [engine.closed for engine in things.engines] == [True, True, False]
    finally:
        worker.stop(PATIENCE)


def test_all_or_none_of_a_request_is_taken() -> None:
    things = shelf()
    worker = worker_on(things, max_open=3)
    try:
        jobs = [generate(i, PYTHON, i, 5, 3) for i in range(4)]
        with pytest.raises(EngineBusyError, match="try again"):
            worker.submit(*[one.job for one in jobs])
        assert worker.open == 0
        worker.submit(*[one.job for one in jobs[:3]])
        assert all(one.over.wait(PATIENCE) for one in jobs[:3])
    finally:
        worker.stop(PATIENCE)


def test_stopping_answers_everybody_once() -> None:
    """Those that run, those that wait for room, those in the inbox."""
    things = shelf(max_batch=1)
    worker = worker_on(things, max_engines=1)
    running = generate(0, PYTHON, 0, 5, 200)
    worker.submit(running.job)
    until(lambda: bool(things.engines) and things.engine(PYTHON).steps > 0)
    engine = things.engine(PYTHON)
    engine.hold_at = engine.steps
    until(lambda: engine.held)
    others = [generate(1 + i, MODELS[i % 3], i, 5, 5) for i in range(6)]
    for one in others:
        worker.submit(one.job)
    worker.interrupt()
    for one in (running, *others):  # at once, while the step is still held
        last = one.events[-1]
        assert isinstance(last, Failed)
        assert isinstance(last.error, ServerError)
    engine.gate.set()
    worker.stop(PATIENCE)
    assert engine.closed
    assert worker.open == 0
    assert all(one.over.is_set() for one in (running, *others))
