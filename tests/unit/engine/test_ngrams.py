"""What n-grams guess."""

from __future__ import annotations

from collections.abc import Sequence as Listed
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.tiny_models import tokenizer

from subllm.engine.output import CompletionText
from subllm.engine.request import Request, SamplingParams
from subllm.engine.sequence import Sequence
from subllm.engine.speculative.ngrams import GRAM, PATIENCE, PLACES, REACH, NgramProposer
from subllm.engine.speculative.sessions import COMPLETIONS, CONTEXT, LENGTH, SESSIONS, Sessions

TOKENIZER = tokenizer()


def sequence_of(prompt: Listed[int], key: str = "r", most: int = 2000, **more: Any) -> Sequence:
    params = SamplingParams(max_tokens=most, ignore_eos=True)
    request = Request(key, tuple(prompt), params, **more)
    return Sequence(request, CompletionText(TOKENIZER, ()), {})


def guessed(proposer: NgramProposer, sequence: Sequence, limit: int = 8) -> list[int]:
    outlook = proposer.outlook(sequence, limit)
    guesses = proposer.propose(sequence, limit, lambda guesses: True)
    assert outlook.chances == tuple(guess.chance for guess in guesses)
    assert all(0 < guess.chance <= 1 for guess in guesses)
    return [guess.token for guess in guesses]


def hits(proposer: NgramProposer, sequence: Sequence, text: Listed[int]) -> list[bool]:
    """Which tokens of the text were foreseen one by one."""
    found = []
    for token in text:
        found.append(guessed(proposer, sequence, 1) == [token])
        sequence.accept(token, None)
    return found


def random_text(seed: int, length: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, 250, length).tolist()


def test_the_longest_match_wins_and_the_newest_of_equals() -> None:
    proposer = NgramProposer()
    long, short = [1, 2, 3, 4, 5, 10, 11], [9, 3, 4, 5, 20, 21]
    assert guessed(proposer, sequence_of([*long, *short, 7, 2, 3, 4, 5], "a"), 2) == [10, 11]
    assert guessed(proposer, sequence_of([*short, *long, 7, 8, 3, 4, 5], "b"), 2) == [10, 11]
    assert guessed(proposer, sequence_of([*long, *short, 7, 8, 3, 4, 5], "c"), 2) == [20, 21]
    assert guessed(proposer, sequence_of([*long, 7, 8, 4, 5], "d"), 2) == []  # two are not enough
    assert guessed(proposer, sequence_of([1, 2], "e")) == []


def test_what_repeats_is_expected_to_go_on() -> None:
    sequence = sequence_of([5, 1, 2, 3, 1, 2, 3])
    assert guessed(NgramProposer(), sequence) == [1, 2, 3, 1, 2, 3, 1, 2]


def test_a_copy_is_followed_through_edits() -> None:
    """A token replaced, some left out, some put in: a few guesses are lost at each."""
    text = random_text(1, 300)
    edited = [*text[:60], 251, *text[61:120], *text[126:200], 252, 253, 254, *text[200:]]
    proposer = NgramProposer()
    sequence = sequence_of([*text, 255, *text[:3]])
    found = hits(proposer, sequence, edited[3:])
    assert found.count(False) <= 1 + 2 + 5
    assert all(found[:57])
    assert all(found[59:110])


def test_a_renamed_name_costs_a_guess_at_a_time() -> None:
    line = [random_text(i, 9) for i in range(20)]
    text = [token for part in line for token in (*part, 251)]
    renamed = [token for part in line for token in (*part, 252, 253)]
    proposer = NgramProposer()
    sequence = sequence_of([*text, 255, *text[:3]])
    found = hits(proposer, sequence, renamed[3:])
    assert found.count(False) <= 3 * 20


def test_a_prediction_is_tried_from_its_begin() -> None:
    text = random_text(3, 40)
    sequence = sequence_of([1, 2, 3], prediction=tuple(text))
    proposer = NgramProposer()
    assert guessed(proposer, sequence) == text[:8]
    found = hits(proposer, sequence, [251, *text[2:]])
    assert found.count(False) <= 2


def test_a_session_knows_what_it_answered_here() -> None:
    """The same place again, and after the user has typed what was shown."""
    proposer, answer = NgramProposer(), random_text(4, 30)
    prompt = random_text(5, 100)
    first = sequence_of(prompt, "a", session="s")
    hits(proposer, first, answer)
    proposer.end(first)
    assert guessed(proposer, sequence_of(prompt, "b", session="s")) == answer[:8]
    assert guessed(proposer, sequence_of(prompt, "c", session="t")) == []
    assert guessed(proposer, sequence_of(prompt, "d")) == []
    typed = sequence_of([1, 2, *prompt[-60:]], "e", session="s")
    assert hits(proposer, typed, answer[6:]).count(False) <= 2


def test_sessions_are_bounded() -> None:
    sessions = Sessions()
    for number in range(3 * SESSIONS):
        for turn in range(COMPLETIONS + 3):
            sequence = sequence_of(random_text(turn, 50), most=2 * LENGTH, session=f"{number}")
            for token in random_text(turn, 10 if number else 2 * LENGTH):
                sequence.accept(token, None)
            sessions.remember(sequence)
        kept = sessions.completions(f"{number}")
        assert len(kept) == COMPLETIONS
        assert all(len(tokens) <= LENGTH + CONTEXT for tokens, _ in kept)
        assert all(begin == CONTEXT for _, begin in kept)
    assert not sessions.completions("0")
    assert sessions.completions(f"{3 * SESSIONS - 1}")
    assert len(sessions._kept) == SESSIONS


@settings(deadline=None)
@given(
    prompt=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    prediction=st.lists(st.integers(0, 3), max_size=20),
    text=st.lists(st.integers(0, 3), min_size=1, max_size=120),
    limit=st.integers(1, 15),
)
def test_any_text(prompt: list[int], prediction: list[int], text: list[int], limit: int) -> None:
    """Whatever comes: guesses within bounds, the index too, and the tokens of a sequence that
    was not looked at for a while are caught up with."""
    proposer = NgramProposer()
    sequence = sequence_of(prompt, prediction=tuple(prediction), session="s")
    for number, token in enumerate(text):
        if number % 3:
            found = guessed(proposer, sequence, limit)
            assert len(found) <= limit
            assert set(found) <= {0, 1, 2, 3}
        sequence.accept(token, None)
    tracker = proposer._tracker(sequence)
    assert tracker._own == [*prompt, *text]
    assert all(len(places) <= PLACES for places in tracker._index.values())
    assert all(len(gram) == GRAM for gram in tracker._index)
    proposer.end(sequence)
    assert not proposer._trackers
    assert PATIENCE < REACH
