"""Speculation on real models gives the very tokens of plain decoding."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from subllm.engine.engine import LocalEngine
from subllm.engine.loader import load_engine
from subllm.engine.request import Request, SamplingParams, TokenEvent
from subllm.models.store.store import Store

from .conftest import BASE, Machine, Run

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(1500)]

LARGE = "qwen2.5-coder:1.5b-dense"
CLASS = """class Stack:
    def __init__(self) -> None:
        self.items: list[int] = []

    def push(self, item: int) -> None:
        self.items.append(item)

    def pop(self) -> int:
        return self.items.pop()

    def size(self) -> int:
        return len(self.items)
"""
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
PROMPTS = [
    'def fibonacci(n: int) -> int:\n    """The n-th Fibonacci number."""\n',
    "import java.util.List;\n\npublic class Numbers {\n    static int sum(List<Integer> v) {\n",
    "#include <vector>\n\nint largest(const std::vector<int>& values) {\n",
    "// Reverses a string\nfunction reverse(text) {\n",
    f"<|fim_prefix|>{CLASS}\n    def peek(self) -> int:\n        <|fim_suffix|>\n<|fim_middle|>",
    "<|fim_prefix|>def area(width, height):\n    return <|fim_suffix|>\n\narea(2, 3)<|fim_middle|>",
    CLASS + "\n\nclass Queue:\n",
    CHAT.format(
        f"Rename the class Stack to Pile, answer with the code alone.\n```python\n{CLASS}```"
    ),
    CHAT.format(f"Add a docstring to every method.\n```python\n{CLASS}```"),
    CHAT.format("Count from 1 to 40, separated by commas."),
    CHAT.format("What is a hash table? Answer in three sentences."),
    CHAT.format("Write a haiku about rain."),
]
VARIANTS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.8, "top_p": 0.95, "seed": 11, "logprobs": 2},
    {"repetition_penalty": 1.1, "temperature": 0.4, "seed": 12, "stop": ("\n\n\n", "```\n")},
]


def answers(
    engine: LocalEngine, speculation: Any, tokens: int
) -> tuple[list[list[TokenEvent]], int]:
    """Of every prompt in turn, the variants by turns too; and the steps taken."""
    found: list[list[TokenEvent]] = []
    steps = 0
    for number, prompt in enumerate(PROMPTS):
        params = SamplingParams(max_tokens=tokens, **VARIANTS[number % len(VARIANTS)])
        ids = tuple(engine._tokenizer.encode(prompt))
        engine.add(Request("r", ids, params, speculation=speculation, session="s"))
        events: list[TokenEvent] = []
        while engine.has_work():
            events += engine.step()
            steps += 1
        found.append(
            [
                replace(
                    event,
                    cached_tokens=0,
                    accepted_prediction_tokens=0,
                    rejected_prediction_tokens=0,
                )
                for event in events
            ]
        )
    return found, steps


def check(engine: LocalEngine, source: str, modes: tuple[str, ...], tokens: int = 72) -> None:
    want, plain_steps = answers(engine, "off", tokens)
    assert engine.speculation.sources == {}
    for mode in modes:
        got, steps = answers(engine, mode, tokens)
        for prompt, one, other in zip(PROMPTS, got, want, strict=True):
            assert one == other, (mode, prompt)
        assert steps < plain_steps
    assert engine.speculation.sources[source].accepted > 100
    engine.close()


def test_ngrams_on_the_base(machine: Machine, tour: list[Run]) -> None:
    engine = load_engine(Store(machine.home), f"{BASE}-dense", context_length=2048)
    check(engine, "ngram", ("ngram", "ngram"))  # the second time its session knows the answers


def test_a_sub_model_drafts_for_its_base(machine: Machine, tour: list[Run]) -> None:
    """At no gain, but a draft all the same."""
    engine = load_engine(
        Store(machine.home), f"{BASE}-dense", context_length=2048, draft=f"{BASE}-python"
    )
    want, _ = answers(engine, "off", 48)
    assert answers(engine, "draft", 48)[0] == want
    engine.close()


def test_the_small_base_drafts_for_the_large_one() -> None:
    home = Path(os.environ.get("SUBLLM_HOME", "/nonexistent"))
    names = Store(home).names() if home.is_dir() else {}
    if LARGE not in names or f"{BASE}-dense" not in names:
        pytest.skip(
            f"{LARGE} and {BASE}-dense are not in the store that SUBLLM_HOME names: "
            f"'subllm add {LARGE.removesuffix('-dense')}' puts it there"
        )
    engine = load_engine(Store(home), LARGE, context_length=2048, draft=f"{BASE}-dense")
    check(engine, "draft", ("draft", "auto"), tokens=48)
