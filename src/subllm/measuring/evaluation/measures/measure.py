"""What a measure is: something to ask of any model, with its data read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from subllm.measuring.evaluation.bench import Bench, TextSide
from subllm.measuring.evaluation.records import Result
from subllm.models.store.store import Store

LETTERS_PER_TOKEN = 3.5
COMPLETION = 75  # tokens of a function body, as measured on HumanEval-X


@dataclass(frozen=True)
class Load:
    """Work of measuring one model: tokens read and written, and seconds of one core to check."""

    prompt_tokens: float = 0.0
    new_tokens: float = 0.0
    core_seconds: float = 0.0


class Measure(Protocol):
    """task      as records name it
    language  of the task; of a domain's task, the domain
    domain    code, text or that domain
    asked     problems, questions or sequences
    samples   completions of each
    """

    @property
    def task(self) -> str: ...

    @property
    def language(self) -> str: ...

    @property
    def domain(self) -> str: ...

    @property
    def asked(self) -> int: ...

    @property
    def samples(self) -> int: ...

    def facts(self, store: Store, text: TextSide) -> dict[str, Any]:
        """All that decides a result of models of one base, beside the model and its engine.
        JSON-ready."""

    def load(self, text: TextSide) -> Load: ...

    def prepare(self, bench: Bench) -> None:
        """Opens what is needed beside an engine, so that what is missing shows early."""

    def run(self, bench: Bench, model: str) -> Result:
        """Goes on where an earlier run was; a complete one is only counted.

        Raises UnknownNameError, UsageError for what the model cannot be asked, LockedError
        while another process does the same, StoreError, and what engine and sandbox raise.
        """
