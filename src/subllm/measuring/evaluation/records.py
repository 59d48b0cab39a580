"""What a measurement leaves behind: JSON lines that stand alone.

The first line says what was measured, with what, on what (`RunHeader`); then comes a line for
each single thing measured, and `Summary` lines, of which the last one holds. Tables and
pictures are made from these files, without weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from subllm.measuring.report.records import Record
from subllm.measuring.report.study.records import Score
from subllm.models.store.manifest import Digest, canonical_json, sha256_of

FORMAT = 1
HARNESS = 2
"""Raised when prompts, stop rules, extraction or tests change what is measured."""


class ModelFacts(Record):
    """The model that was measured. digest: of its manifest."""

    name: str
    digest: Digest
    language: str
    base: str
    base_digest: Digest
    base_source: str
    method: str
    pattern: str
    values: str
    head: str
    density: float


class DataFacts(Record):
    """What it was measured on; `digest` is over all of it, whatever part was used."""

    source: str
    form: str
    digest: Digest
    rows: int


class Sampling(Record):
    """How completions were sampled. temperature 0: greedy, and the seed has no meaning."""

    temperature: float
    top_p: float
    max_tokens: int
    seed: int


class RunHeader(Record):
    """What makes two results comparable, and when and where they were made.

    prompt   "raw", "chat" or "fim"; None where no completion is asked for
    harness  version of prompts, stop rules and tests; another one is another measurement
    tools    what else decides a result: engine backend, tool chain
    machine, created: may differ between two halves of a run
    """

    kind: Literal["run"] = "run"
    format: int = FORMAT
    task: str
    language: str
    model: ModelFacts
    data: DataFacts
    prompt: Literal["raw", "chat", "fim"] | None = None
    sampling: Sampling | None = None
    harness: int
    tools: dict[str, str] = Field(default_factory=dict)
    machine: dict[str, Any] = Field(default_factory=dict)
    created: str = ""

    @property
    def key(self) -> str:
        """16 hex digits that name this measurement."""
        known = self.model_dump(mode="json", exclude={"machine", "created"})
        return sha256_of(canonical_json(known)).removeprefix("sha256-")[:16]


class Canonical(Record):
    """The verdict on the data's own solution of a problem."""

    kind: Literal["canonical"] = "canonical"
    problem: str
    status: str
    detail: str
    seconds: float


class Sample(Record):
    """One completion and its verdict.

    raw      all that the model wrote; `kept` characters of it count
    program  what was run
    ended    "stop": by the model or a stop string, "length", "rule": by a stop rule,
             "loop": because it repeated itself
    seconds  to generate, beside others in a batch; check_seconds: to compile and run
    exact    whether it is the data's own solution (infilling only)
    """

    kind: Literal["sample"] = "sample"
    run: str
    problem: str
    index: int
    raw: str
    kept: int
    program: str
    ended: Literal["stop", "length", "rule", "loop"]
    tokens: int
    seconds: float
    status: str
    detail: str
    check_seconds: float
    exact: bool | None = None


class ScoredText(Record):
    """One sequence of held-out text: summed negative log-likelihood of `tokens` tokens."""

    kind: Literal["scored"] = "scored"
    run: str
    index: int
    tokens: int
    nll: float


class Compared(Record):
    """One greedy continuation by the dense base of which a sub-model would have written
    `agreed` tokens, the first `common` without a difference."""

    kind: Literal["compared"] = "compared"
    run: str
    index: int
    tokens: int
    agreed: int
    common: int


class Question(Record):
    """One row of a domain task, by its place in the split: its score (0 to 1), all metrics
    that the harness counts, and what was generated, if anything."""

    kind: Literal["question"] = "question"
    run: str
    row: int
    score: float
    metrics: dict[str, float]
    answers: tuple[str, ...] = ()


class Summary(Record):
    """Figures of all lines before it."""

    kind: Literal["summary"] = "summary"
    run: str
    figures: dict[str, Any]


Line = Canonical | Sample | ScoredText | Compared | Question | Summary
LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="kind")])


@dataclass(frozen=True)
class Result:
    """header, figures  as in the records file at `path`
    new              lines added just now
    scores           of the figures, what tables show
    passed           problem -> how many of its samples pass, where any does (pass@k only)
    """

    header: RunHeader
    figures: dict[str, Any]
    path: Path
    new: int
    scores: tuple[Score, ...]
    passed: dict[str, int] = field(default_factory=dict)
