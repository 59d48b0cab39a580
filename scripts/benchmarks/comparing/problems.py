"""The problems that all ways are asked, and which of them tell how fast they are."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subllm.errors import SubllmError
from subllm.measuring.evaluation.data import load_file
from subllm.measuring.evaluation.problems import Benchmark, Problem
from subllm.models.store.manifest import canonical_json, sha256_of
from subllm.models.text.tokenizer import Tokenizer

BESIDE = Path(__file__).resolve().parents[4] / "shared" / "data" / "humaneval_python.jsonl.gz"
"""Where the data lies beside the project."""

MAX_TOKENS = 512
TYPICAL = 110
"""Tokens of a completion to its natural end, and of a prompt about as many: for estimates."""


def load(data: str) -> Benchmark:
    """HumanEval-X in Python, from the file `data`, "" for BESIDE; ends the process in a line
    where there is none."""
    path = Path(data).expanduser() if data else BESIDE
    if not path.is_file():
        sys.exit(f"no benchmark data: {path} is not there; give --data humaneval_python.jsonl.gz "
                 "(HumanEval-X)")  # fmt: skip
    try:
        found = load_file(path, "python")
    except SubllmError as error:
        sys.exit(str(error))
    if any(problem.stops or problem.kind != "function" for problem in found.problems):
        sys.exit(f"{path.name} has other problems than HumanEval-X in Python; correct --data")
    return found


def spread(problems: tuple[Problem, ...], rounds: int, each: int) -> list[list[Problem]]:
    """For each round `each` problems, from all over, none of them twice while they suffice: a
    prompt that came before could be answered from what an engine remembers."""
    wanted = min(rounds * each, len(problems))
    some = [problems[index * len(problems) // wanted] for index in range(wanted)]
    return [
        [some[(number + rounds * place) % wanted] for place in range(min(each, wanted))]
        for number in range(rounds)
    ]


def ask(problem: Problem, tokenizer: Tokenizer) -> dict[str, Any]:
    """What a worker is asked; see engines/completing.py."""
    return {
        "id": problem.id,
        "prompt": tokenizer.encode_plain(problem.prompt, bos=None),
        "max_tokens": MAX_TOKENS,
        "head": problem.head,
    }


@dataclass(frozen=True)
class Plan:
    """What the speed of every way is measured on: asks of each round."""

    rounds: list[list[dict[str, Any]]]

    @property
    def longest(self) -> int:
        return max(len(one["prompt"]) + one["max_tokens"] for asks in self.rounds for one in asks)

    def digest(self, number: int) -> str:
        """Of one round's asks."""
        return sha256_of(canonical_json(self.rounds[number]))
