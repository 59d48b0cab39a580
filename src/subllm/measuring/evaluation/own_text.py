"""How well models know text of a user's own that none of them learned from: its perplexity, and
how many of its lines they fill in exactly as they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from subllm.engine.request import SamplingParams
from subllm.making.calibration.load import TextOrigin, load_heldout, own_heldout
from subllm.making.calibration.render import Renderer
from subllm.making.calibration.source import Document
from subllm.measuring.evaluation.engines import EngineSource
from subllm.measuring.evaluation.generate import Ask, generate
from subllm.measuring.evaluation.held_out import LENGTH, SEQUENCES
from subllm.measuring.evaluation.problems import INFILL, Problem
from subllm.measuring.evaluation.prompts import Form, Prompter
from subllm.measuring.evaluation.stops import OneLine
from subllm.models.catalog.loader import Catalog
from subllm.models.store.store import Store
from subllm.models.store.tokenizers import open_tokenizer
from subllm.models.tables.seeded import key
from subllm.progress import Progress, bar

HOLES = 40
_MAX_TOKENS = 64  # of a line
_LINE = range(8, 101)  # characters that a line to fill in has, without its indentation
_BEFORE = 3  # lines; a text's first ones can only be guessed
_TOGETHER = 8


@dataclass(frozen=True)
class OwnText:
    """tokens  int32 [<= SEQUENCES, <= LENGTH]
    holes   single lines, with their prompt and what its completion begins with, fewer than HOLES
            where there is little text; `canonical` is the line
    form    "fim", or "raw" for a model without markers, which goes on after what is before
    """

    tokens: npt.NDArray[np.int32]
    holes: tuple[tuple[Problem, tuple[int, ...], tuple[int, ...]], ...]
    form: Form


@dataclass(frozen=True)
class OwnFigures:
    """Of one model: perplexity over `tokens` tokens, and how many of `holes` lines it fills in
    exactly."""

    perplexity: float
    tokens: int
    exact: int
    holes: int


def load_own_text(
    store: Store,
    model: str,
    spec: str,
    language: str,
    *,
    catalog: Catalog,
    offline: bool = False,
    progress: Progress | None = None,
) -> OwnText:
    """What learning from `spec` left out, in the vocabulary of `model`; the same holes for the
    same text. Raises CalibrationError and its kin where there is less than one sequence."""
    manifest = store.model(model)
    tokenizer, prompt = open_tokenizer(store, manifest), manifest.prompt
    length = min(LENGTH, prompt.context_length)
    origin = TextOrigin(language, catalog, offline, progress)
    tokens = load_heldout(
        origin,
        Renderer(tokenizer, prompt),
        sequences=SEQUENCES,
        seq_len=length,
        spec=spec,
        own=True,
    )
    form: Form = "raw" if prompt.fim is None else "fim"
    prompter = Prompter(tokenizer, prompt, form)
    documents = own_heldout(spec, origin)
    holes = []
    for problem in _holes(documents, language):
        fitting = _fitting(problem, prompter, prompt.context_length - _MAX_TOKENS)
        if fitting is not None:
            holes.append(fitting)
        if len(holes) == HOLES:
            break
    return OwnText(tokens, tuple(holes), form)


def measure_own_text(
    engines: EngineSource, model: str, text: OwnText, progress: Progress
) -> OwnFigures:
    """Raises as `load_engine` and `generate`."""
    asks = [
        Ask(
            problem.id, ids, SamplingParams(max_tokens=_MAX_TOKENS), OneLine(problem.suffix),
            begun=begun,
        )
        for problem, ids, begun in text.holes
    ]  # fmt: skip
    longest = max([text.tokens.shape[1], *(ask.tokens for ask in asks)])
    engine = engines(model, _TOGETHER, longest)
    nll, count = 0.0, 0
    with bar(progress, "own", f"{model}: scoring", len(text.tokens), "items"):
        for row in text.tokens.tolist():
            scores = [score.logprob for score in engine.score(tuple(row)) if score is not None]
            nll -= math.fsum(scores)
            count += len(scores)
            progress.advance("own")
    lines = {problem.id: problem.canonical or "" for problem, *_ in text.holes}
    exact = 0
    with bar(progress, "own", f"{model}: filling in lines", len(asks), "items"):
        for answer in generate(engine, asks, _TOGETHER):
            exact += answer.text.strip() == lines[answer.id].strip()
            progress.advance("own")
    return OwnFigures(math.exp(nll / count), count, exact, len(asks))


def _fitting(
    problem: Problem, prompter: Prompter, room: int
) -> tuple[Problem, tuple[int, ...], tuple[int, ...]] | None:
    """With its prompt, and as much of what is around the hole as `room` tokens hold."""
    while sum(map(len, encoded := prompter.ids(problem))) > room:
        before = problem.prompt.splitlines(keepends=True)
        after = problem.suffix.splitlines(keepends=True)
        if not before and not after:
            return None
        near = "".join(before[(len(before) + 1) // 2 :])
        suffix = "".join(after[: len(after) // 2])
        problem = replace(problem, prompt=near, head=near, suffix=suffix)
    return problem, *encoded


def _holes(documents: Sequence[Document], language: str) -> Iterator[Problem]:
    """Lines of the documents in a seeded order, each as a problem."""
    places = [
        (document, number)
        for document in documents
        if not document.turns
        for number, line in enumerate(document.text.splitlines())
        if number >= _BEFORE and len(line.strip()) in _LINE and any(map(str.isalpha, line))
    ]
    for document, number in sorted(places, key=lambda at: key("hole", at[0].id, at[1])):
        lines = document.text.splitlines(keepends=True)
        before = "".join(lines[:number])
        yield Problem(
            id=f"SingleLine/{document.id}/{number}",
            language=language,
            kind=INFILL,
            prompt=before,
            head=before,
            suffix="".join(lines[number + 1 :]),
            test="",
            canonical=lines[number],
        )
