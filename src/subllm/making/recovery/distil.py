"""The loop: text in, better kept weights out, within a budget."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from subllm.errors import CorruptError, UsageError
from subllm.making.recovery.again import Kept
from subllm.making.recovery.budget import Budget
from subllm.making.recovery.card import Room, fit_card
from subllm.making.recovery.compute import DTYPES, choose_compute
from subllm.making.recovery.ends import knowing_ends
from subllm.making.recovery.heap import kept_heap
from subllm.making.recovery.loss import Distillation, hidden_error
from subllm.making.recovery.masters import AdamW, DivergedError
from subllm.making.recovery.memory import Need, choose_kept, free_bytes, needed
from subllm.making.recovery.recipe import Recipe
from subllm.making.recovery.rows import Order, RecoveryText
from subllm.making.recovery.skeleton import Skeleton, Tables
from subllm.making.recovery.standing import Report, Run, Standing
from subllm.making.recovery.state import StateFile
from subllm.making.recovery.student import Student
from subllm.making.recovery.task import CurvePoint, Outcome, Stopped, Task, Weights, best_of
from subllm.making.recovery.teacher import teachers_of
from subllm.progress import NullProgress, Progress, bar

POINTS = 20
"""On the curve of one budget, at most, apart from the start."""
_LEAST_STEPS = 8  # between two points: held-out text costs as much as one or two steps
_MOST_SECONDS = 600.0  # between two points, which is also what a kill loses
# Whose rows the teacher is asked about together: few at first, so that what is left is soon told.
_FIRST_STEPS, _MOST_STEPS = 4, 16
_HELDOUT_ROWS = 4  # at a time
_FITTED_TOKENS = 8192  # that int4's first scales and codes are fitted to


@dataclass(frozen=True)
class Fit:
    """What memory holds: `kept` of every block for its backward pass, and `apart` as of `Student`;
    None is by memory."""

    kept: Kept | None = None
    apart: int | None = None


class Recovery:
    """One task, its model in memory and its state on disk.

    state_dir   holds the state; a recovery of the same task goes on from it
    answers_dir holds what the dense base answered, for all recoveries that share texts; None
                is `state_dir`. Not used where the recipe's `top_k` is 0

    A run with the budget of one that was killed or stopped resumes it, as if it had never
    ended; after a budget that was used up the next one starts with a warm-up of its own.
    """

    def __init__(
        self,
        task: Task,
        state_dir: Path,
        *,
        answers_dir: Path | None = None,
        device: torch.device | str = "cpu",
        compute: str = "auto",
        fit: Fit | None = None,
        progress: Progress | None = None,
    ) -> None:
        """compute: "auto" or a name in `compute.DTYPES`; fit: None is by memory.

        Raises UsageError where memory does not suffice, CalibrationError for less text than
        a batch, ExtractionError for masks or tokens that do not fit the base.
        """
        self._task = task
        self._device = torch.device(device)
        self._progress = progress or NullProgress()
        task.check()
        reader, recipe = task.reader, task.recipe
        self.compute = choose_compute(compute, reader.spec, self._device)
        self._dtype = DTYPES[self.compute]
        by_memory, blocks_apart = self._fit()
        fit = fit or Fit()
        self.kept = by_memory if fit.kept is None else (fit.kept,) * reader.spec.num_layers
        self.apart = blocks_apart if fit.apart is None else fit.apart
        if self.apart and fit.apart is None:
            self._progress.note(
                f"the card has no room for what {self.apart} of {reader.spec.num_layers} blocks "
                "learn: that lies in the processor's memory, and takes longer"
            )
        tables = Tables(reader, (task.text, task.heldout), self._device, self._dtype)
        self._distillation = Distillation(
            tables.head,
            temperature=recipe.temperature,
            disagreement=recipe.disagreement,
            next_token=recipe.next_token,
        )
        self._adamw = AdamW(recipe)
        skeleton = Skeleton(reader, tables, self._device, self._dtype)
        self._student = Student(skeleton, task, self._adamw, kept=self.kept, apart=self.apart)
        self._teacher, self._judge = teachers_of(
            task, tables, self._distillation, answers_dir or state_dir, self.compute, self._device,
            self._dtype,
        )  # fmt: skip
        if recipe.ends and recipe.top_k:
            self._teacher = knowing_ends(self._teacher, task.text)
            self._judge = knowing_ends(self._judge, task.heldout)
        self._state = StateFile(state_dir)
        self._order = Order(task.text.rows, recipe.seed)
        self._standing = Standing(self._key())
        self._saved = False
        self._sums = [0.0, 0.0]  # divergence and tokens since the last point

    @property
    def weights(self) -> Weights:
        """What was learned so far, an earlier run's state included once `run` began."""
        return self._student.masters

    def run(
        self,
        budget: Budget,
        progress: Progress | None = None,
        on_better: Callable[[CurvePoint, Weights], None] | None = None,
        stopped: Callable[[], bool] | None = None,
        on_step: Callable[[Report], None] | None = None,
    ) -> Outcome:
        """Learn until the budget is used up or `stopped` says so, after a step; state is
        saved at every point of the curve and at the end.

        on_better  hears of every point whose `judged` is the lowest so far, the start
                   excepted; what it takes of time counts

        Raises DiskFullError, the last state saved intact.
        """
        if budget.tokens is not None and 0 < budget.tokens < self._task.recipe.tokens:
            raise UsageError(
                f"a budget of {budget.tokens} tokens is less than one batch of "
                f"{self._task.recipe.tokens}"
            )
        run = Run(budget, time.monotonic(), on_better, stopped, on_step)
        progress = progress or self._progress
        self._resume(budget, progress)
        run.began -= self._standing.run_seconds
        self._judge.prepare(range(self._task.heldout.rows), progress)
        if not self._standing.curve:
            self._point(run)
        try:
            with (
                bar(progress, "recovery", "recovering", budget.tokens, "tokens"),
                kept_heap(),
            ):
                progress.advance("recovery", self._standing.run_tokens)
                ended = self._loop(run, progress)
        except DivergedError as error:
            progress.note(f"{error}; going back to the last good state")
            self._go_back()
            ended = "diverged"
        curve = tuple(self._standing.curve)
        return Outcome(curve, best_of(curve), curve[-1].tokens, self._standing.seconds, ended)

    def _loop(self, run: Run, progress: Progress) -> Stopped:
        """Until the end, at a point of the curve with its state saved. Raises DivergedError."""
        standing, recipe = self._standing, self._task.recipe
        prepared = standing.step
        together = _FIRST_STEPS
        took = 0.0
        point_step, point_share = standing.step, run.share(standing)
        while True:
            asked = bool(run.stopped and run.stopped())
            over = run.over(standing, recipe.tokens, took)
            behind = standing.step - point_step
            due = behind >= _LEAST_STEPS and (
                run.share(standing) - point_share >= 1 / POINTS
                or run.elapsed() - standing.run_seconds >= _MOST_SECONDS
            )
            if asked or over or due:
                if over:
                    standing.budget = None
                if behind:
                    self._point(run)
                elif over and standing.step:
                    self._state.save(self._student.masters, standing.to_dict())
                point_step, point_share = standing.step, run.share(standing)
                if asked or over:
                    return "budget" if over else "asked"
            if self._rounds_now(run):
                if behind and not due:
                    self._point(run)
                self._begin_rounding(run, progress)
                point_step, point_share = standing.step, run.share(standing)
            if standing.step >= prepared:
                count = run.steps_left(standing, recipe.tokens, together)
                rows = self._order.at(standing.step * recipe.sequences, count * recipe.sequences)
                self._teacher.prepare(rows, progress, run.stopped)
                if run.stopped and run.stopped():
                    continue
                prepared, together = standing.step + count, min(2 * together, _MOST_STEPS)
            began = time.monotonic()
            loss, agreed = self._step(run)
            took = time.monotonic() - began
            progress.advance("recovery", recipe.tokens)
            if run.on_step:
                run.on_step(self._report(run, loss, agreed))

    def _step(self, run: Run) -> tuple[float, float]:
        """One batch: its mean loss and agreement."""
        standing, recipe = self._standing, self._task.recipe
        rows = self._order.at(standing.step * recipe.sequences, recipe.sequences)
        target = self._teacher.target(rows)
        states = self._student.states(self._task.text, rows)
        loss = self._distillation(states.detach(), target, self._following(self._task.text, rows))
        if not math.isfinite(loss.weighted):
            raise DivergedError("the loss is not finite")
        assert loss.gradient is not None
        if recipe.hidden:
            wanted = self._teacher.states(rows, target)
            loss.gradient.add_(hidden_error(states.detach(), wanted)[1], alpha=recipe.hidden)
        calm = recipe.calm(standing.nearest(recipe.tokens))
        standing.run_tokens += recipe.tokens
        rate = recipe.rate(run.share(standing), rounded=standing.rounding)
        self._adamw.begin(calm * rate)
        states.backward(loss.gradient)  # type: ignore[no-untyped-call]
        standing.step += 1
        if standing.rounding and recipe.refit and standing.step % recipe.refit == 0:
            self._student.masters.fit()
        self._sums[0] += loss.divergence
        self._sums[1] += loss.tokens
        return loss.divergence / loss.tokens, loss.agreed / loss.tokens

    def _point(self, run: Run) -> None:
        """Judge, note it on the curve, save, and hand out what is better. Raises
        DivergedError."""
        standing = self._standing
        kl, agreement, nll = self._heldout()
        self._student.masters.check()
        now = run.elapsed()
        standing.seconds += now - standing.run_seconds
        standing.run_seconds = now
        loss = self._sums[0] / self._sums[1] if self._sums[1] else None
        self._sums = [0.0, 0.0]
        tokens = standing.step * self._task.recipe.tokens
        point = CurvePoint(tokens, standing.seconds, loss, kl, agreement, nll, standing.rounding)
        start = not standing.curve
        # After rounding nothing but rounding makes a better one.
        better = not start and best_of([*standing.curve, point]) is point
        standing.curve.append(point)
        if not start:
            self._state.save(self._student.masters, standing.to_dict())
            self._saved = True
            if better and run.on_better:
                run.on_better(point, self._student.masters)

    def _rounds_now(self, run: Run) -> bool:
        standing, recipe = self._standing, self._task.recipe
        wanted = recipe.rounding > 0 and not standing.rounding
        return wanted and run.share(standing) >= 1 - recipe.rounding

    def _begin_rounding(self, run: Run, progress: Progress) -> None:
        """From here on the model computes with what would be packed. Raises DivergedError."""
        progress.note("from here on values are rounded to int4 as they will be packed")
        rows = -(-_FITTED_TOKENS // self._task.text.length)
        self._student.begin_rounding(self._task.int4, self._task.text, rows)
        self._standing.rounding = True
        self._point(run)

    @torch.no_grad()
    def _heldout(self) -> tuple[float, float, float | None]:
        """KL, agreement and, where next tokens are learned, their negative log-likelihood on the
        held-out text. Raises DivergedError."""
        text = self._task.heldout
        divergence, agreed, tokens, nll, labelled = 0.0, 0, 0, 0.0, 0
        for start in range(0, text.rows, _HELDOUT_ROWS):
            rows = list(range(start, min(start + _HELDOUT_ROWS, text.rows)))
            states = self._student.states(text, rows)
            loss = self._distillation(
                states, self._judge.target(rows), self._following(text, rows), gradient=False
            )
            divergence += loss.divergence
            agreed += loss.agreed
            tokens += loss.tokens
            nll += loss.nll
            labelled += loss.labelled
        if not math.isfinite(divergence + nll):
            raise DivergedError("the loss on held-out text is not finite")
        return divergence / tokens, agreed / tokens, nll / labelled if labelled else None

    def _following(self, text: RecoveryText, rows: list[int]) -> torch.Tensor | None:
        """Next tokens at the learned positions of some rows; None where they have no share."""
        if not self._task.recipe.next_token:
            return None
        found = text.next_tokens[rows][text.learned[rows]]
        return torch.from_numpy(found).to(self._device)

    def _report(self, run: Run, loss: float, agreement: float) -> Report:
        standing = self._standing
        seconds = run.elapsed()
        rate = standing.run_tokens / seconds
        left = (run.budget.seconds or 0.0) - seconds
        if run.budget.tokens is not None:
            left = (run.budget.tokens - standing.run_tokens) / rate
        return Report(
            standing.run_tokens, seconds, loss, agreement, rate, max(left, 0.0), standing.curve[-1]
        )

    def _resume(self, budget: Budget, progress: Progress) -> None:
        """Take up the state on disk, where there is one of this task."""
        try:
            about = self._state.about()
            if about is not None and about["key"] != self._standing.key:
                progress.note("the state on disk is of another recovery; starting over")
            elif about is not None:
                self._load(about)
        except CorruptError as error:
            self._student.masters.set_rounding({})
            progress.note(f"{error}; starting over")
        standing = self._standing
        if standing.step:
            progress.note(
                f"recovery goes on after {standing.step * self._task.recipe.tokens:,} tokens"
            )
        if standing.budget != str(budget):
            standing.budget, standing.run_tokens, standing.run_seconds = str(budget), 0, 0.0
            standing.rounding = False
            self._student.masters.set_rounding({})

    def _load(self, about: dict[str, Any]) -> None:
        """The state that says this of itself. Raises CorruptError."""
        self._student.masters.set_rounding(self._task.int4 if about.get("rounding") else {})
        self._state.load(self._student.masters)
        self._take(about)

    def _take(self, about: dict[str, Any]) -> None:
        self._standing = Standing.from_dict(about)
        self._adamw.steps = self._standing.step
        self._saved = True
        self._sums = [0.0, 0.0]

    def _go_back(self) -> None:
        if self._saved:
            about = self._state.about()
            assert about is not None
            self._load(about)
            return
        # Nothing was better than the start yet; it is read again.
        self._student.restart(self._task)
        curve = self._standing.curve[:1]
        self._standing = Standing(self._standing.key, curve=curve)
        self._adamw.steps = 0

    def _fit(self) -> tuple[tuple[Kept, ...], int]:
        """What is kept of each block, and how many blocks learn apart, by memory."""
        task, spec, recipe = self._task, self._task.reader.spec, self._task.recipe
        learned = spec.num_layers * spec.block_params() if recipe.dense else 0
        if task.masks and not learned:
            names = list(task.masks)
            sample = names[:: max(1, len(names) // 7)]
            kept, size = 0, 0
            for mask in (task.masks[name] for name in sample):
                kept, size = kept + int(np.count_nonzero(mask)), size + mask.size
            shapes = (task.reader.shape(name) for name in names)
            learned = int(sum(math.prod(shape) for shape in shapes) * kept / max(size, 1))
        tokens = len(
            np.unique(np.concatenate([np.unique(t.tokens) for t in (task.text, task.heldout)]))
        )

        size, free, apart = self._dtype.itemsize, free_bytes(self._device), 0
        teacher = task.teacher.spec if task.teacher is not None else None

        def need(recipe: Recipe) -> Need:
            return needed(spec, recipe, size, learned, tokens, teacher)

        least = need(recipe)
        if self._device.type != "cpu":
            here = free_bytes(torch.device("cpu"))
            apart, least = fit_card(spec, recipe, size, learned, tokens, Room(free, here), teacher)
        chosen = choose_kept(
            least, free, need(replace(recipe, sequences=1)), need(replace(recipe, moments="int8"))
        )
        return chosen, apart

    def _key(self) -> str:
        """What must be the same for a state to be gone on with. Not what it is computed in:
        masters are float32 everywhere."""
        task = self._task
        masks = hashlib.sha256()
        for name, tensor in self._student.masters.tensors.items():
            masks.update(f"{name} {tensor.shape} {tensor.places.digest()}\n".encode())
        parts = [
            task.base, task.recipe.identity(), task.text.digest, task.heldout.digest,
            masks.hexdigest(),
        ]  # fmt: skip
        if task.teacher is not None:
            parts.append(task.taught_by)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
