"""What measures on held-out text share: the text as tokens, and one line for each sequence."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from subllm.languages import LANGUAGES
from subllm.making.calibration.sampler import digest
from subllm.measuring.evaluation.bench import Bench, TextSide
from subllm.measuring.evaluation.held_out import held_out
from subllm.measuring.evaluation.measures.measure import Load, Measure
from subllm.measuring.evaluation.options import TaskOptions
from subllm.measuring.evaluation.record_file import RecordFile
from subllm.measuring.evaluation.records import Compared, DataFacts, Result, ScoredText
from subllm.measuring.report.study.records import Score
from subllm.models.store.store import Store

Ids = tuple[int, ...]
LineT = TypeVar("LineT", ScoredText, Compared)


class HeldOutText:
    """Held-out text of one language in every vocabulary that asks for it."""

    def __init__(self, language: str, sequences: int, length: int, path: Path | None) -> None:
        """sequences, length (in tokens), path: as in `held_out`."""
        self.language = language
        self._open = partial(held_out, language, sequences=sequences, length=length, path=path)
        self._read: dict[TextSide, tuple[npt.NDArray[np.int32], str]] = {}

    def tokens(self, text: TextSide) -> tuple[npt.NDArray[np.int32], str]:
        """int32 [sequences, length], and where it is from. Raises as `held_out`."""
        if text not in self._read:
            self._read[text] = self._open(text.tokenizer, text.prompt)
        return self._read[text]

    @property
    def sequences(self) -> int:
        """In the vocabulary that has most of those asked for so far."""
        return max(len(tokens) for tokens, _ in self._read.values())


class TextMeasure(ABC, Generic[LineT]):
    """A measure that leaves a line of `kind` for each sequence."""

    task: ClassVar[str]
    kind: type[LineT]
    domain = "text"
    samples = 1

    def __init__(self, text: HeldOutText) -> None:
        self._text = text
        self.language = text.language

    @property
    def asked(self) -> int:
        return self._text.sequences

    def facts(self, store: Store, text: TextSide) -> dict[str, Any]:
        tokens, _ = self._text.tokens(text)
        return {"task": self.task, "language": self.language, "data": digest(tokens)}

    def load(self, text: TextSide) -> Load:
        return Load(prompt_tokens=float(self._text.tokens(text)[0].size))

    def prepare(self, bench: Bench) -> None:
        pass

    def run(self, bench: Bench, model: str) -> Result:
        tokens, source = self._text.tokens(bench.text(model))
        data = DataFacts(source=source, form="tokens", digest=digest(tokens), rows=len(tokens))
        tools = self.tools(bench, model)
        header = bench.header(model, self.task, self.language, data, tools=tools)
        with RecordFile(bench.records, header) as records:
            began = time.monotonic()
            done = {line.index for line in records.of(self.kind)}
            missing = {i: tuple(row) for i, row in enumerate(tokens.tolist()) if i not in done}
            if missing:
                for line in self.lines(bench, model, missing, records.key):
                    records.append(line)
            figures = self.figures(bench, model, list(records.of(self.kind)))
            spent = {"wall_seconds": round(time.monotonic() - began, 2)}
            figures = records.conclude(figures, len(missing), spent)
            scores = (Score(name=self.task, value=figures[self.task]),)
            return Result(header, figures, records.path, len(missing), scores)

    def tools(self, bench: Bench, model: str) -> dict[str, str]:
        """What decides the result beside model, text and engine."""
        return {}

    @abstractmethod
    def lines(
        self, bench: Bench, model: str, sequences: Mapping[int, Ids], run: str
    ) -> Iterator[LineT]:
        """A line for each of the sequences, which are named by index. run: for the lines."""

    @abstractmethod
    def figures(self, bench: Bench, model: str, lines: Sequence[LineT]) -> dict[str, Any]:
        """Of all lines; the score under the task's name."""


def load_texts(
    kind: Callable[[HeldOutText], Measure],
    sequences: int,
    length: int,
    task: str,
    options: TaskOptions,
    bench: Bench,
    texts: Sequence[TextSide],
) -> list[Measure]:
    """A measure of this kind in each language. sequences (if no limit is given) and length, in
    tokens: of its text. Raises as `held_out`."""
    found = []
    for language in options.languages or LANGUAGES:
        text = HeldOutText(language, options.limit or sequences, length, options.own.get(task))
        for side in texts:
            text.tokens(side)
        found.append(kind(text))
    return found
