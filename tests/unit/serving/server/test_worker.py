"""The engine thread on real tiny engines: whatever is asked, in whatever order, each job gets
what an engine of its own would give, one last word, and leaves nothing behind."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subllm.engine.engine import LocalEngine
from subllm.engine.request import Request, SamplingParams, TokenEvent
from subllm.errors import ContextLengthError, EngineBusyError, EngineError, ServerError
from subllm.serving.server.jobs import (
    Failed,
    Generated,
    Job,
    JobEvent,
    ModelRef,
    ScoreWork,
    TimeLimits,
    TokenScores,
)
from subllm.serving.server.turns import QUIET_TURN, STREAMING_TURN
from subllm.serving.server.worker import HANGS_AFTER, EngineWorker
from subllm.serving.server.worker_config import Bounds, Loading
from unit.serving.server.tiny import (
    CPP,
    JAVA,
    PATIENCE,
    PYTHON,
    VOCAB,
    Engine,
    Shelf,
    needs,
    shelf,
    until,
)

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


def worker_on(
    things: Shelf, *, clock: Callable[[], float] = time.monotonic, **bounds: Any
) -> EngineWorker:
    loading = Loading(things.load, measure=things.footprint)
    worker = EngineWorker(loading, Bounds(**bounds), clock=clock)
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
    limits=st.sampled_from([{}, {"step_tokens": 3}]),
    memory=st.sampled_from([None, (1, 1), (2, 1), (3, 1), (3, 3), (3, 10)]),
)
def test_everybody_gets_what_is_theirs(
    jobs: list[tuple[str, str, int, int, int, bool]],
    engines: int,
    batch: int,
    limits: dict[str, int],
    memory: tuple[int, int] | None,  # in so many weights and contexts
) -> None:
    things = shelf(max_batch=batch)
    weights, kv = needs()
    room = None if memory is None else memory[0] * weights + memory[1] * kv
    worker = worker_on(things, engines=engines, memory=room, **limits)
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
    worker = worker_on(things, engines=1)
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
    worker = worker_on(things, jobs=3)
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
    worker = worker_on(things, engines=1)
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


def held_stream(worker: EngineWorker, things: Shelf, **more: Any) -> Asked:
    """A completion of Python's model that has begun, with its next step held."""
    stream = generate(0, PYTHON, 0, 5, 200)
    stream.job.limits = TimeLimits(**more)
    worker.submit(stream.job)
    until(lambda: bool(stream.events))
    engine = things.engine(PYTHON)
    engine.hold_at = engine.steps
    until(lambda: engine.held)
    return stream


def test_a_stream_goes_on_while_another_model_loads() -> None:
    things = shelf()
    go_on = threading.Event()
    things.loading = _until_set(go_on, JAVA)
    worker = worker_on(things)
    try:
        other = generate(1, JAVA, 1, 5, 3)
        worker.submit(other.job)
        until(lambda: worker.loading == JAVA)
        stream = generate(0, PYTHON, 0, 5, 50)
        late = generate(2, CPP, 2, 5, 3)  # one at a time: it waits for Java's to be loaded
        worker.submit(late.job)
        worker.submit(stream.job)
        assert not stream.over.is_set() and worker.loading == JAVA
        worker.cancel(other.job)  # the load goes on all the same
        go_on.set()
        assert late.over.wait(PATIENCE) and stream.over.wait(PATIENCE)
        assert stream.text == alone(PYTHON, 0, 5, 50)
        assert things.engines[0].name == JAVA
        assert JAVA in {model.name for model in worker.loaded}
        go_on.clear()
        again = generate(3, JAVA, 1, 5, 3)
        worker.submit(again.job)
        assert again.over.wait(PATIENCE)  # not loaded anew
    finally:
        go_on.set()
        worker.stop(PATIENCE)
    assert all(engine.closed for engine in things.engines)


def test_a_loaded_model_streams_through_the_load_of_another() -> None:
    things = shelf()
    go_on = threading.Event()
    things.loading = _until_set(go_on, JAVA)
    worker = worker_on(things)
    try:
        first = generate(0, PYTHON, 0, 5, 3)
        worker.submit(first.job)
        assert first.over.wait(PATIENCE)
        other = generate(1, JAVA, 1, 5, 3)
        worker.submit(other.job)
        until(lambda: worker.loading == JAVA)
        stream = generate(2, PYTHON, 0, 5, 50)
        worker.submit(stream.job)
        assert stream.over.wait(PATIENCE)  # from its first token to its last
        assert worker.loading == JAVA and not other.events
        assert stream.text == alone(PYTHON, 0, 5, 50)
        go_on.set()
        assert other.over.wait(PATIENCE)
        assert worker.loading is None
    finally:
        go_on.set()
        worker.stop(PATIENCE)


def _until_set(event: threading.Event, model: str) -> Callable[[str], None]:
    """For `Shelf.loading`: this model loads until then."""

    def loading(name: str) -> None:
        if name == model:
            assert event.wait(PATIENCE)

    return loading


def test_stopping_during_a_load_frees_what_was_loaded() -> None:
    things = shelf()
    go_on = threading.Event()
    things.loading = _until_set(go_on, PYTHON)
    worker = worker_on(things)
    one = generate(0, PYTHON, 0, 5, 3)
    worker.submit(one.job)
    until(lambda: worker.loading == PYTHON)
    worker.interrupt()
    assert isinstance(one.events[-1], Failed)  # at once
    go_on.set()
    worker.stop(PATIENCE)
    assert [engine.closed for engine in things.engines] == [True]


def test_the_time_of_a_turn_is_shared_and_short_while_anything_streams() -> None:
    things = shelf()
    worker = worker_on(things)
    given: list[tuple[str, float | None]] = []
    try:
        for model in (PYTHON, JAVA):
            one = generate(0, model, 0, 5, 1)
            worker.submit(one.job)
            assert one.over.wait(PATIENCE)
            engine = things.engine(model)

            def step(
                allowance: int | None, seconds: float | None, engine: Engine = engine
            ) -> list[TokenEvent]:
                given.append((engine.name, seconds))
                return LocalEngine.step(engine._engine, allowance, seconds)

            engine._engine.step = step  # type: ignore[method-assign]
        alone_first = generate(1, PYTHON, 1, 40, 1)
        worker.submit(alone_first.job)
        assert alone_first.over.wait(PATIENCE)
        assert set(given) == {(PYTHON, QUIET_TURN)}
        given.clear()
        held_stream(worker, things)
        score = ask(2, JAVA, ScoreWork(prompt_of(2, 100)))
        worker.submit(score.job)
        things.engine(PYTHON).gate.set()
        assert score.over.wait(PATIENCE)
        assert {seconds for model, seconds in given if model == JAVA} == {STREAMING_TURN / 2}
    finally:
        things.engine(PYTHON).gate.set()
        worker.stop(PATIENCE)


def test_a_score_is_given_up_within_a_turn() -> None:
    things = shelf()
    worker = worker_on(things)
    try:
        first = generate(0, PYTHON, 0, 5, 1)
        worker.submit(first.job)
        assert first.over.wait(PATIENCE)
        engine = things.engine(PYTHON)
        score = ask(1, PYTHON, ScoreWork(prompt_of(1, 250)))
        begun = engine.steps
        engine.hold_at = begun + 2
        worker.submit(score.job)
        until(lambda: engine.held)
        worker.cancel(score.job)
        engine.gate.set()
        until(lambda: not engine.has_work())
        assert engine.steps <= begun + 4  # of 16
        assert not score.events
    finally:
        worker.stop(PATIENCE)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("limit", ["total", "predict"])
def test_a_completion_ends_when_its_time_is_up(limit: str) -> None:
    things, clock = shelf(), Clock()
    worker = worker_on(things, clock=clock)
    try:
        stream = held_stream(worker, things, **{limit: 5.0})
        clock.now += 4.9
        engine = things.engine(PYTHON)
        engine.hold_at = engine.steps + 1
        engine.held = False
        engine.gate.set()
        until(lambda: engine.held)
        assert not stream.over.is_set()
        clock.now += 0.2
        engine.gate.set()
        assert stream.over.wait(PATIENCE)
        last = stream.events[-1]
        assert isinstance(last, Generated)
        assert last.event.finish_reason == "length"
        assert 0 < last.event.completion_tokens < 200
        # The start of a character that was not to come counts as none.
        assert alone(PYTHON, 0, 5, 200).startswith(stream.text.rstrip("\ufffd"))
    finally:
        things.engine(PYTHON).gate.set()
        worker.stop(PATIENCE)


def test_time_runs_out_for_those_that_wait_as_well() -> None:
    things, clock = shelf(), Clock()
    go_on = threading.Event()
    things.loading = _until_set(go_on, PYTHON)
    worker = worker_on(things, clock=clock)
    try:
        one = generate(0, PYTHON, 0, 5, 3)
        one.job.limits = TimeLimits(total=2.0)
        worker.submit(one.job)
        until(lambda: worker.loading == PYTHON)
        clock.now += 2.5
        assert one.over.wait(PATIENCE)  # while the model still loads
        (last,) = one.events
        assert isinstance(last, Generated)
        assert (last.event.finish_reason, last.event.prompt_tokens) == ("length", 5)
    finally:
        go_on.set()
        worker.stop(PATIENCE)


def test_a_turn_that_does_not_end_is_told() -> None:
    things, clock = shelf(), Clock()
    worker = worker_on(things, clock=clock)
    try:
        clock.now += 2 * HANGS_AFTER
        assert worker.hang is None  # there is nothing to do
        stream = held_stream(worker, things)
        clock.now += HANGS_AFTER - 1
        assert worker.hang is None
        clock.now += 2
        assert worker.hang is not None and "has not come back for 31 seconds" in worker.hang
        things.engine(PYTHON).gate.set()
        assert stream.over.wait(PATIENCE)
        until(lambda: worker.hang is None)
    finally:
        things.engine(PYTHON).gate.set()
        worker.stop(PATIENCE)
