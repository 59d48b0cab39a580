"""The dense base's next-token distributions, beside the student or from a cache on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from subllm.making.recovery.answers import Answers, Asked
from subllm.making.recovery.decoder import load
from subllm.making.recovery.loss import Distillation, Target, TopK
from subllm.making.recovery.rows import RecoveryText
from subllm.making.recovery.skeleton import Skeleton, Tables, learned_states
from subllm.making.recovery.task import Task
from subllm.models.weights.reader import WeightReader
from subllm.progress import NullProgress, Progress, bar

# Rows that go through the dense blocks together, so that each is read once for them; and
# of these, rows at a time.
_TOGETHER, _AT_ONCE = 64, 4


Stop = Callable[[], bool]


class Teacher(Protocol):
    """The teacher of one text."""

    def prepare(self, rows: Iterable[int], progress: Progress, stopped: Stop | None = None) -> None:
        """What makes `target` of these rows quick; given up once `stopped` says so."""

    def target(self, rows: list[int]) -> Target:
        """At the learned positions of these rows, in their order."""

    def states(self, rows: list[int], target: Target) -> torch.Tensor:
        """Those before the head, [n, hidden], that belong to a `target` of these rows."""


class BesideTeacher:
    """All dense blocks in memory; the whole vocabulary."""

    def __init__(self, skeleton: Skeleton, reader: WeightReader, text: RecoveryText) -> None:
        """skeleton: one that nothing else uses; loaded here, where it was not yet."""
        self._skeleton, self._text = skeleton, text
        for layer, block in enumerate(skeleton.blocks):
            if any(parameter.is_meta for parameter in block.parameters()):
                _load_block(skeleton, reader, layer)

    def prepare(self, rows: Iterable[int], progress: Progress, stopped: Stop | None = None) -> None:
        """Nothing to do."""

    @torch.no_grad()
    def target(self, rows: list[int]) -> torch.Tensor:
        """States before the head, [n, hidden]."""
        hidden, calls = self._skeleton.enter(self._text, rows)
        for layer, call in enumerate(calls):
            hidden = self._skeleton.run(layer, hidden, call)
        states: torch.Tensor = self._skeleton.norm(learned_states(hidden, self._text, rows))
        return states

    def states(self, rows: list[int], target: Target) -> torch.Tensor:
        """The target itself."""
        assert isinstance(target, torch.Tensor)
        return target


class CachedTeacher:
    """Answers on disk; what is missing is made block by block, so that no dense model is
    ever whole in memory."""

    def __init__(
        self,
        skeleton: Skeleton,
        reader: WeightReader,
        text: RecoveryText,
        answers: Answers,
        distillation: Distillation,
    ) -> None:
        """skeleton: one without blocks loaded; distillation: whose head and temperature
        make the answers."""
        self._skeleton, self._reader, self._text = skeleton, reader, text
        self._answers, self._distillation = answers, distillation

    def prepare(self, rows: Iterable[int], progress: Progress, stopped: Stop | None = None) -> None:
        """Raises DiskFullError."""
        missing = [row for row in sorted(set(rows)) if not self._answers.has(row)]
        if not missing:
            return
        total = len(missing) * self._text.length
        with bar(progress, "teacher", "asking the dense base", total, "tokens"):
            for start in range(0, len(missing), _TOGETHER):
                self._answer(missing[start : start + _TOGETHER], progress, stopped)
                if stopped and stopped():
                    return

    @torch.no_grad()
    def _answer(self, rows: list[int], progress: Progress, stopped: Stop | None = None) -> None:
        skeleton, text = self._skeleton, self._text
        batches = [rows[i : i + _AT_ONCE] for i in range(0, len(rows), _AT_ONCE)]
        entered = [skeleton.enter(text, batch) for batch in batches]
        hidden = [states for states, _ in entered]
        layers = len(skeleton.blocks)
        for layer in range(layers):
            _load_block(skeleton, self._reader, layer)
            for i, (_, calls) in enumerate(entered):
                hidden[i] = skeleton.run(layer, hidden[i], calls[layer])
                progress.advance("teacher", len(batches[i]) * text.length / layers)
            skeleton.blocks[layer].to("meta")
            self._reader.release()
            if stopped and stopped():
                return
        for batch, states in zip(batches, hidden, strict=True):
            for row, one in zip(batch, states, strict=True):
                last = skeleton.norm(learned_states(one[None], text, [row]))
                self._answers.put(row, self._distillation.top(last, self._answers.k), last)

    def target(self, rows: list[int]) -> TopK:
        """Rows that `prepare` was not asked for are made now."""
        found = [self._answers.get(row) for row in rows]
        missing = [row for row, answer in zip(rows, found, strict=True) if answer is None]
        for start in range(0, len(missing), _TOGETHER):
            self._answer(missing[start : start + _TOGETHER], NullProgress())
        answers = [self._answers.get(row) for row in rows] if missing else found
        return join([answer for answer in answers if answer is not None], self._skeleton.device)

    def states(self, rows: list[int], target: Target) -> torch.Tensor:
        """From the disk, where `target` has put them at the latest."""
        return torch.cat([self._answers.states(row) for row in rows]).to(self._skeleton.device)


class HolesTaughtBy:
    """One teacher of what fills holes, another of all else."""

    def __init__(self, holes: CachedTeacher, rest: CachedTeacher, text: RecoveryText) -> None:
        """holes: of the text whose learned positions are `filled_only`'s."""
        assert text.filled is not None
        self._holes, self._rest = holes, rest
        self._learned, self._filled = text.learned, text.learned & text.filled

    def prepare(self, rows: Iterable[int], progress: Progress, stopped: Stop | None = None) -> None:
        """Raises DiskFullError."""
        rows = list(rows)
        self._rest.prepare(rows, progress, stopped)
        if not (stopped and stopped()):
            self._holes.prepare(self._with_holes(rows), progress, stopped)

    def target(self, rows: list[int]) -> TopK:
        rest = self._rest.target(rows)
        if holed := self._with_holes(rows):
            filled = self._filled[rows][self._learned[rows]]
            at = torch.from_numpy(np.flatnonzero(filled)).to(rest.rest.device)
            answer = self._holes.target(holed)
            for mine, other in (
                (rest.ids, answer.ids), (rest.chances, answer.chances), (rest.rest, answer.rest),
            ):  # fmt: skip
                mine[at] = other
        return rest

    def states(self, rows: list[int], target: Target) -> torch.Tensor:
        """The base's, everywhere: another's are of another size."""
        return self._rest.states(rows, target)

    def _with_holes(self, rows: Sequence[int]) -> list[int]:
        return [row for row in rows if self._filled[row].any()]


def filled_only(text: RecoveryText) -> RecoveryText:
    """The text of which nothing is learned but what fills holes."""
    assert text.filled is not None
    return replace(text, learned=text.learned & text.filled)


def teachers_of(
    task: Task,
    tables: Tables,
    distillation: Distillation,
    directory: Path,
    compute: str,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Teacher, Teacher]:
    """Of the text to learn from and of that to judge by. tables, distillation: the student's;
    directory: of answers, which are computed in `compute`."""
    recipe, size = task.recipe, task.reader.spec.vocab_size
    dense = Skeleton(task.reader, tables, device, dtype)
    of_holes: Callable[[RecoveryText], CachedTeacher] | None = None

    def cached(
        skeleton: Skeleton, reader: WeightReader, base: str, tells: Distillation,
        text: RecoveryText, hidden: int = 0,
    ) -> CachedTeacher:  # fmt: skip
        """hidden: size of the states that it tells too."""
        answers = Answers(
            directory, text,
            Asked(base, size, recipe.top_k, recipe.temperature, compute, hidden),
        )  # fmt: skip
        return CachedTeacher(skeleton, reader, text, answers, tells)

    if task.teacher is not None:
        others = Tables(task.teacher, (task.text, task.heldout), device, dtype, size)
        of_holes = partial(
            cached, Skeleton(task.teacher, others, device, dtype), task.teacher, task.taught_by,
            Distillation(others.head, temperature=recipe.temperature),
        )  # fmt: skip

    def of(text: RecoveryText, hidden: int) -> Teacher:
        if not recipe.top_k:
            return BesideTeacher(dense, task.reader, text)
        own = cached(dense, task.reader, task.base, distillation, text, hidden)
        if of_holes is None:
            return own
        return HolesTaughtBy(of_holes(filled_only(text)), own, text)

    return of(task.text, task.reader.spec.hidden_size if recipe.hidden else 0), of(task.heldout, 0)


def join(parts: Sequence[TopK], device: torch.device) -> TopK:
    return TopK(
        torch.cat([part.ids for part in parts]).to(device),
        torch.cat([part.chances for part in parts]).to(device),
        torch.cat([part.rest for part in parts]).to(device),
    )


def _load_block(skeleton: Skeleton, reader: WeightReader, layer: int) -> None:
    prefix = skeleton.spec.block_prefix(layer)
    load(
        skeleton.blocks[layer], lambda name: reader.read(prefix + name),
        skeleton.device, skeleton.dtype,
    )  # fmt: skip
