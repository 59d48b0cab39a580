"""What a measurement leaves behind: JSON lines that stand alone.

The first line says what was measured, with what, on what (`RunHeader`); then comes a line for
each single thing measured, and `Summary` lines, of which the last one holds. Tables and
pictures are made from these files, without weights. A run that was killed goes on in its
file: what is in it is not measured again.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from subllm.errors import LockedError, StoreError
from subllm.report.study.records import Score
from subllm.store.files import disk_errors
from subllm.store.manifest import Digest, canonical_json, sha256_of

FORMAT = 1
HARNESS = 2
"""Raised when prompts, stop rules, extraction or tests change what is measured."""


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelFacts(_Line):
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


class DataFacts(_Line):
    """What it was measured on; `digest` is over all of it, whatever part was used."""

    source: str
    form: str
    digest: Digest
    rows: int


class Sampling(_Line):
    """How completions were sampled. temperature 0: greedy, and the seed has no meaning."""

    temperature: float
    top_p: float
    max_tokens: int
    seed: int


class RunHeader(_Line):
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
    tools: dict[str, str] = {}
    machine: dict[str, Any] = {}
    created: str = ""

    @property
    def key(self) -> str:
        """16 hex digits that name this measurement."""
        known = self.model_dump(mode="json", exclude={"machine", "created"})
        return sha256_of(canonical_json(known)).removeprefix("sha256-")[:16]


class Canonical(_Line):
    """The verdict on the data's own solution of a problem."""

    kind: Literal["canonical"] = "canonical"
    problem: str
    status: str
    detail: str
    seconds: float


class Sample(_Line):
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


class ScoredText(_Line):
    """One sequence of held-out text: summed negative log-likelihood of `tokens` tokens."""

    kind: Literal["scored"] = "scored"
    run: str
    index: int
    tokens: int
    nll: float


class Compared(_Line):
    """One greedy continuation by the dense base of which a sub-model would have written
    `agreed` tokens, the first `common` without a difference."""

    kind: Literal["compared"] = "compared"
    run: str
    index: int
    tokens: int
    agreed: int
    common: int


class Question(_Line):
    """One row of a domain task, by its place in the split: its score (0 to 1), all metrics
    that the harness counts, and what was generated, if anything."""

    kind: Literal["question"] = "question"
    run: str
    row: int
    score: float
    metrics: dict[str, float]
    answers: tuple[str, ...] = ()


class Summary(_Line):
    """Figures of all lines before it."""

    kind: Literal["summary"] = "summary"
    run: str
    figures: dict[str, Any]


_Kind = TypeVar("_Kind", Canonical, Sample, ScoredText, Compared, Question, Summary)
Line = Canonical | Sample | ScoredText | Compared | Question | Summary
_LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="kind")])


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


def read_records(path: Path) -> tuple[RunHeader, list[Line]]:
    """A whole file; a last line that was cut short is left out.

    Raises StoreError for a file that is missing, malformed or of another format.
    """
    with disk_errors(path):
        data = path.read_bytes()
    return _parse(path, data[: data.rfind(b"\n") + 1])


class RecordFile:
    """A records file that is being written; use as a context manager."""

    def __init__(self, directory: Path, header: RunHeader) -> None:
        """Opens `<task>-<language>-<model>-<key>.jsonl`, where an earlier run may have
        left lines. Raises LockedError when another process writes it, StoreError when it
        is malformed or cannot be written, DiskFullError."""
        self.key = header.key
        name = f"{header.task}-{header.language}-{header.model.name}-{self.key}.jsonl"
        self.path = directory / name.replace(":", "-")
        self.lines: list[Line] = []
        with disk_errors(self.path):
            directory.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = self.path.open("a+b")
            try:
                self._open(header)
            except BaseException:
                self._file.close()
                raise

    def append(self, line: Line) -> None:
        """One line more, in the file when this returns."""
        with disk_errors(self.path):
            self._file.write(canonical_json(line.model_dump(mode="json")) + b"\n")
            self._file.flush()
        self.lines.append(line)

    def of(self, kind: type[_Kind]) -> Iterator[_Kind]:
        """The lines of one kind."""
        return (line for line in self.lines if isinstance(line, kind))

    def conclude(self, figures: dict[str, Any], new: int, effort: dict[str, Any]) -> dict[str, Any]:
        """`figures` as the summary of a run, with the `effort` that its `new` lines took;
        where there are none, the summary of the earlier run that gave these figures."""
        if not new:
            for summary in reversed(list(self.of(Summary))):
                if figures.items() <= summary.figures.items():
                    return summary.figures
        figures = {**figures, **effort}
        self.append(Summary(run=self.key, figures=figures))
        return figures

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def _open(self, header: RunHeader) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(f"another process writes {self.path}; wait for it to end") from None
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        self._file.truncate(whole)  # a line that a killed run left unfinished
        if whole:
            _, self.lines = _parse(self.path, data[:whole])
            return
        self._file.write(canonical_json(header.model_dump(mode="json")) + b"\n")
        self._file.flush()


def _parse(path: Path, data: bytes) -> tuple[RunHeader, list[Line]]:
    number = 1
    try:
        first, *others = data.splitlines()
        if json.loads(first).get("format") != FORMAT:
            raise StoreError(f"{path} has another format of records; move it away")
        header = RunHeader.model_validate_json(first)
        lines: list[Line] = []
        for line in others:
            number += 1
            lines.append(_LINE.validate_json(line))
    except (ValueError, AttributeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise StoreError(
            f"{path}:{number}: no record ({reason}); move the file away to measure again"
        ) from error
    return header, lines
