"""Batches on the engine give what single requests give, and rules end them early."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from local_engines import local_engine
from oracles.packed_models import packed_oracle
from oracles.tiny_models import tokenizer

from subllm.engine.backends.native import NativeBackend
from subllm.engine.engine import LocalEngine
from subllm.engine.request import Request, SamplingParams
from subllm.errors import ContextLengthError
from subllm.measuring.evaluation.generate import Answer, Ask, generate
from subllm.models.text.looping import LOOP

TOKENIZER = tokenizer()
PROMPTS = {f"p{n}": tuple(b"some text"[: n + 2]) for n in range(7)}
PARAMS = SamplingParams(max_tokens=12, ignore_eos=True)


class AtCharacters:
    """Keeps `keep` characters once there are `when`."""

    def __init__(self, when: int, keep: int) -> None:
        self.when, self.keep = when, keep

    def cut(self, text: str) -> int | None:
        return self.keep if len(text) >= self.when else None

    def end(self, text: str) -> int:
        return min(self.keep, len(text))


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    packed, _ = packed_oracle("qwen2")
    backend = NativeBackend(packed, threads=1, kv="float32", exact=True)
    made = local_engine(backend, TOKENIZER, context_length=64, max_batch=3)
    yield made
    made.close()


def single(engine: LocalEngine, prompt: tuple[int, ...], params: SamplingParams) -> str:
    engine.add(Request("one", prompt, params))
    text = ""
    while engine.has_work():
        text += "".join(event.text for event in engine.step())
    return text


def asked(engine: LocalEngine, *asks: Ask, together: int = 3) -> dict[str, Answer]:
    answers = {answer.id: answer for answer in generate(engine, asks, together)}
    assert not engine.has_work()
    return answers


@pytest.mark.parametrize("together", [1, 3])
def test_same_as_alone(engine: LocalEngine, together: int) -> None:
    asks = [Ask(name, prompt, PARAMS) for name, prompt in PROMPTS.items()]
    answers = asked(engine, *asks, together=together)
    assert answers.keys() == PROMPTS.keys()
    for name, prompt in PROMPTS.items():
        answer = answers[name]
        assert answer.raw == answer.text == single(engine, prompt, PARAMS)
        assert (answer.ended, answer.tokens, len(answer.ids)) == ("length", 12, 12)
        assert answer.seconds > 0


def test_sampling_follows_each_seed(engine: LocalEngine) -> None:
    def ask(name: str, seed: int) -> Ask:
        params = SamplingParams(max_tokens=12, ignore_eos=True, temperature=1.0, seed=seed)
        return Ask(name, PROMPTS["p0"], params)

    answers = asked(engine, ask("a", 1), ask("b", 2), ask("c", 1))
    assert answers["a"].ids == answers["c"].ids != answers["b"].ids


def test_rule_ends_a_request_and_frees_its_place(engine: LocalEngine) -> None:
    rule = AtCharacters(when=4, keep=2)
    whole = single(engine, PROMPTS["p1"], PARAMS)
    answers = asked(
        engine,
        Ask("cut", PROMPTS["p1"], PARAMS, rule),
        Ask("whole", PROMPTS["p2"], PARAMS),
        together=1,
    )
    cut = answers["cut"]
    assert (cut.text, cut.ended) == (whole[:2], "rule")
    assert whole.startswith(cut.raw)
    assert cut.tokens < 12
    assert answers["whole"].ended == "length"


def test_rule_has_the_last_word_at_the_end(engine: LocalEngine) -> None:
    rule = AtCharacters(when=10**6, keep=3)
    answer = asked(engine, Ask("a", PROMPTS["p1"], PARAMS, rule))["a"]
    assert (answer.text, answer.ended) == (answer.raw[:3], "length")


def test_loops_end_where_they_may_not_go_on() -> None:
    only = SamplingParams(max_tokens=400, ignore_eos=True, logit_bias=((ord("x"), 100.0),))
    packed, _ = packed_oracle("qwen2", max_position_embeddings=512)
    backend = NativeBackend(packed, threads=1, kv="float32", exact=True)
    longer = local_engine(backend, TOKENIZER, context_length=450, max_batch=2)
    try:
        asks = [Ask("a", PROMPTS["p0"], only, loops=True), Ask("b", PROMPTS["p0"], only)]
        answers = asked(longer, *asks, together=2)
    finally:
        longer.close()
    assert (answers["a"].ended, answers["a"].text) == ("loop", "x" * LOOP)
    assert (answers["b"].ended, answers["b"].tokens) == ("length", 400)


def test_stop_strings_end_by_themselves(engine: LocalEngine) -> None:
    whole = single(engine, PROMPTS["p1"], PARAMS)
    stop = whole[5]
    params = SamplingParams(max_tokens=12, ignore_eos=True, stop=(stop,))
    answer = asked(engine, Ask("a", PROMPTS["p1"], params))["a"]
    assert (answer.raw, answer.ended) == (whole[: whole.index(stop)], "stop")


def test_closing_aborts_what_runs(engine: LocalEngine) -> None:
    asks = [Ask(name, prompt, PARAMS, AtCharacters(1, 1)) for name, prompt in PROMPTS.items()]
    answers = generate(engine, asks, 3)
    next(answers)
    assert engine.has_work()
    answers.close()
    assert not engine.has_work()


def test_what_does_not_fit_is_refused(engine: LocalEngine) -> None:
    params = SamplingParams(max_tokens=100)
    with pytest.raises(ContextLengthError):
        asked(engine, Ask("a", PROMPTS["p0"], params))
    assert not engine.has_work()


def test_what_a_completion_begins_with_takes_room_too() -> None:
    assert Ask("a", (1, 2), SamplingParams(max_tokens=5), begun=(3,)).tokens == 8
