"""Many sequences in slots against one transformers forward pass over each finished text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from answers import Sampling
from generate import CANDIDATES, Generator
from oracles import tiny_models

PROMPTS = [(n, [(7 * n + i) % 250 for i in range(3 + n % 5)]) for n in range(11)]
NEVER: frozenset[int] = frozenset()


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """These matrices are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_models.oracle("qwen2").bfloat16()


def reference_logits(model: Any, prompt: list[int], tokens: list[int]) -> torch.Tensor:
    """float32 [len(tokens), vocab]: what each token was drawn from, by plain attention."""
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + tokens])).logits[0].float()
    return logits[len(prompt) - 1 : -1]


def run(model: Any, sampling: Sampling, slots: int, stops: frozenset[int] = NEVER) -> dict:
    generator = Generator(model, stops, sampling, slots)
    return {done.index: done for done in generator.run(PROMPTS)}


@pytest.mark.parametrize("slots", [1, 4, 16])
def test_each_token_is_the_most_likely_one_when_cold(model: Any, slots: int) -> None:
    made = run(model, Sampling(temperature=1e-4, top_p=0.5, max_new=12), slots)
    assert sorted(made) == list(range(len(PROMPTS)))
    for index, prompt in PROMPTS:
        tokens = made[index].tokens
        assert len(tokens) == 12
        assert not made[index].ended
        logits = reference_logits(model, prompt, tokens)
        lost = logits.max(-1).values - logits[range(12), tokens]
        assert lost.max() < 0.03 * logits.abs().max()  # bfloat16 leaves 8 bits


def test_warm_draws_stay_inside_the_nucleus_and_differ_by_prompt_number(model: Any) -> None:
    sampling = Sampling(temperature=0.8, top_p=0.6, max_new=20)
    made = run(model, sampling, 4)
    greedy = 0
    for index, prompt in PROMPTS:
        tokens = made[index].tokens
        probs = torch.softmax(reference_logits(model, prompt, tokens) / 0.8, -1)
        drawn = probs[range(20), tokens]
        above = (probs * (probs > drawn[:, None])).sum(-1)
        assert above.max() < 0.6 + 0.05
        greedy += int((probs.max(-1).values == drawn).sum())
    assert greedy < 0.95 * 20 * len(PROMPTS)
    again = run(model, sampling, 4)
    assert all(again[i].tokens == made[i].tokens for i in made)
    other = run(model, Sampling(temperature=0.8, top_p=0.6, max_new=20, seed=1), 4)
    assert any(other[i].tokens != made[i].tokens for i in made)


def test_a_stop_token_ends_a_text_and_is_not_part_of_it(model: Any) -> None:
    sampling = Sampling(temperature=1e-4, top_p=0.5, max_new=12)
    free = run(model, sampling, 4)
    stop = free[3].tokens[5]
    made = run(model, sampling, 4, frozenset({stop}))
    for index in free:
        whole = free[index].tokens
        ends = stop in whole
        assert made[index].ended == ends
        assert made[index].tokens == (whole[: whole.index(stop)] if ends else whole)


def test_draws_follow_the_distribution(model: Any) -> None:
    """One prompt with many numbers: frequencies of the first token against the softmax."""
    count, prompt = 1500, [5, 80, 33]
    generator = Generator(model, NEVER, Sampling(temperature=1.5, top_p=0.9, max_new=1), 500)
    drawn = [done.tokens[0] for done in generator.run([(n, prompt) for n in range(count)])]
    probs = torch.softmax(reference_logits(model, prompt, [0])[0] / 1.5, -1).numpy()
    order = np.argsort(-probs)[:CANDIDATES]
    top = probs[order] / probs[order].sum()
    kept = order[np.cumsum(top) - top < 0.9]
    expected = probs[kept] / probs[kept].sum()
    found = np.array([drawn.count(int(token)) for token in kept]) / count
    assert set(drawn) <= set(order.tolist())
    assert np.abs(found - expected).sum() < 0.25
