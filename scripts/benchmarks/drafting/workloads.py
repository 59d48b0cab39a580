"""The workloads on which speculation is judged: where it should pay, and where it must not cost."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subllm.measuring.evaluation.problems import Problem
from subllm.models.catalog.prompt import PromptSpec
from subllm.models.text import fim
from subllm.models.text.chat_prompt import encode_chat
from subllm.models.text.chat_template import ChatTemplate
from subllm.models.text.tokenizer import Tokenizer

FILE = Path(__file__).with_name("inventory.py.txt")
OLD, NEW = "stock", "shelf"
"""The name that is changed in FILE."""

STREAMS = 8
SHORT = 24  # tokens of a completion in the middle of a line or so
RANDOM_TOKENS = 128


@dataclass(frozen=True)
class Workload:
    """together  requests at once
    whole     whether prompts count as well: rate of all new tokens over all of the time, not of
              decoding alone
    rounds    asks of each round (see engines/completing.py), no two alike
    """

    title: str
    together: int
    whole: bool
    rounds: list[list[dict[str, Any]]]

    @property
    def longest(self) -> int:
        return max(len(ask["prompt"]) + ask["max_tokens"] for asks in self.rounds for ask in asks)


def workloads(
    tokenizer: Tokenizer, spec: PromptSpec, problems: Sequence[Problem], rounds: int
) -> list[Workload]:
    """All of them; without `problems`, those that need none."""
    made = [rewriting(tokenizer, rounds), incompressible(tokenizer, rounds)]
    if problems:
        made.insert(0, functions(tokenizer, problems, rounds))
        made.append(streams(tokenizer, problems, rounds))
        if spec.fim is not None:
            made.append(infilling(tokenizer, spec, problems, rounds))
    return made


def functions(
    tokenizer: Tokenizer, problems: Sequence[Problem], rounds: int, each: int = 4
) -> Workload:
    asked = [
        [
            {
                "id": problem.id,
                "prompt": tokenizer.encode_plain(problem.prompt, bos=None),
                "max_tokens": 512,
                "head": problem.head,
            }
            for problem in row
        ]
        for row in _rows(problems, rounds, each)
    ]
    return Workload("HumanEval-X Python, to the natural end", 1, False, asked)


def rewriting(tokenizer: Tokenizer, rounds: int) -> Workload:
    """A file of 60 lines with one name changed, in a chat; another name in every round."""
    source = FILE.read_text()
    template = ChatTemplate(tokenizer.chat_template or "", tokenizer.bos_token, tokenizer.eos_token)
    asked = []
    for number in range(rounds):
        new = NEW if number == 0 else f"{NEW}{number}"
        message = (
            f"Rename the variable `{OLD}` to `{new}` everywhere in this file and change nothing "
            f"else. Answer with the whole file.\n\n```python\n{source}```"
        )
        prompt = encode_chat(template, tokenizer, [{"role": "user", "content": message}])
        prompt = [*prompt, *tokenizer.encode_plain("```python\n")]
        asked.append([{"id": "rewrite", "prompt": prompt, "max_tokens": 700, "loops": False}])
    return Workload("rewriting 60 lines, one name changed", 1, False, asked)


def incompressible(tokenizer: Tokenizer, rounds: int) -> Workload:
    """Text that nobody can foresee: sampled far above the model's own temperature."""
    chance = random.Random(0)
    asked = [
        [
            {
                "id": f"random {number}",
                "prompt": tokenizer.encode_plain(f"{chance.getrandbits(256):x} "),
                "max_tokens": RANDOM_TOKENS,
                "ignore_eos": True,
                "temperature": 2.0,
                "seed": number,
                "loops": False,
            }
        ]
        for number in range(rounds)
    ]
    return Workload("incompressible text, sampled", 1, True, asked)


def streams(tokenizer: Tokenizer, problems: Sequence[Problem], rounds: int) -> Workload:
    asked = [
        [
            {
                "id": problem.id,
                "prompt": tokenizer.encode_plain(problem.prompt, bos=None),
                "max_tokens": 96,
                "ignore_eos": True,
                "loops": False,
            }
            for problem in row
        ]
        for row in _rows(problems[1:], rounds, STREAMS)
    ]
    return Workload(f"{STREAMS} streams", STREAMS, True, asked)


def infilling(
    tokenizer: Tokenizer, spec: PromptSpec, problems: Sequence[Problem], rounds: int
) -> Workload:
    """The middle of each solution is a hole."""
    assert spec.fim is not None
    asked = []
    for row in _rows(problems[2:], rounds, STREAMS):
        asks = []
        for problem in row:
            lines = (problem.prompt + (problem.canonical or "")).splitlines(keepends=True)
            at = max(1, len(lines) - 3)
            prefix, suffix = "".join(lines[:at]), "".join(lines[at + 1 :])
            prompt = fim.encode(spec.fim, tokenizer, prefix, suffix)
            asks.append({"id": problem.id, "prompt": list(prompt), "max_tokens": SHORT})
        asked.append(asks)
    return Workload("short completions in the middle", 1, True, asked)


def _rows(problems: Sequence[Problem], rounds: int, each: int) -> list[list[Problem]]:
    """`each` problems for every round, from all over, none of them twice while they last."""
    wanted = min(rounds * each, len(problems))
    some = [problems[index * len(problems) // wanted] for index in range(wanted)]
    return [[some[(n + rounds * place) % wanted] for place in range(each)] for n in range(rounds)]
