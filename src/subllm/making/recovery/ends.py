"""Where a hole ends, which small models do not know: what is taught there is that the text ends.

A dense base of half a billion parameters goes on at the end of a hole with what follows it, or with
something else, and a sub-model that learns its distribution learns that. Behind what was taken
out of a text nothing but the end is right, whatever the teacher thinks.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch

from subllm.making.recovery.loss import Target, TopK
from subllm.making.recovery.rows import RecoveryText
from subllm.making.recovery.teacher import Stop, Teacher
from subllm.progress import Progress


def knowing_ends(teacher: Teacher, text: RecoveryText) -> Teacher:
    """Of `text`; the teacher itself where no hole in it ends, as far as is known."""
    return EndsOfHoles(teacher, text) if ends_of_holes(text).any() else teacher


class EndsOfHoles:
    """A teacher who knows where holes end, and of all else what another does."""

    def __init__(self, teacher: Teacher, text: RecoveryText) -> None:
        """teacher: of `text`, telling outcomes apart. text: knowing where holes are filled."""
        self._teacher, self._text = teacher, text
        self._ends = ends_of_holes(text)

    def prepare(self, rows: Iterable[int], progress: Progress, stopped: Stop | None = None) -> None:
        self._teacher.prepare(rows, progress, stopped)

    def target(self, rows: list[int]) -> TopK:
        found = self._teacher.target(rows)
        assert isinstance(found, TopK)
        learned = self._text.learned[rows]
        at = torch.from_numpy(np.flatnonzero(self._ends[rows][learned]))
        ends = torch.from_numpy(self._text.next_tokens[rows][learned])[at]
        return certain(found, at.to(found.rest.device), ends.to(found.rest.device))

    def states(self, rows: list[int], target: Target) -> torch.Tensor:
        return self._teacher.states(rows, target)


def ends_of_holes(text: RecoveryText) -> npt.NDArray[np.bool_]:
    """bool [rows, length], True for the last token that was written into a hole, where the token
    that closes the text follows it in the same row. Nothing is learned after that one."""
    found = np.zeros(text.tokens.shape, np.bool_)
    if text.filled is not None:
        found[:, :-1] = ~text.learned[:, 1:] & ~text.starts[:, 1:]
        found &= text.learned & text.filled
    return found


def certain(target: TopK, at: torch.Tensor, ids: torch.Tensor) -> TopK:
    """The target, at the tokens `at` (int64 [n]) certain of the outcomes `ids` (int64 [n])."""
    every = target.ids[at]
    # Outcomes are told apart, so where it is one of them already it changes places.
    every = torch.where(every == ids[:, None], every[:, :1], every)
    every[:, 0] = ids
    chances = torch.zeros_like(target.chances[at])
    chances[:, 0] = 1
    return TopK(
        target.ids.index_copy(0, at, every),
        target.chances.index_copy(0, at, chances),
        target.rest.index_fill(0, at, 0),
    )
