"""Whole recoveries of tiny models."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles.tiny_models import oracle

from subllm.errors import CalibrationError, ExtractionError, UsageError
from subllm.making.recovery.again import Kept
from subllm.making.recovery.budget import Budget
from subllm.making.recovery.distil import Fit, Recovery
from subllm.making.recovery.loss import hidden_error
from subllm.making.recovery.masters import AdamW
from subllm.making.recovery.rows import RecoveryText
from subllm.making.recovery.standing import Report
from subllm.models.weights.open import open_weights

from .conftest import LENGTH, Notes, text

BATCH = 3 * LENGTH


def steps(count: int) -> Budget:
    return Budget(tokens=count * BATCH)


def after(count: int) -> dict[str, Any]:
    """Arguments that stop a run after so many steps."""
    seen: list[Report] = []
    return {"stopped": lambda: len(seen) >= count, "on_step": seen.append}


def everything(recovery: Recovery) -> dict[str, np.ndarray]:
    return {name: recovery.weights.read(name) for name in recovery.weights.names()}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def test_the_student_comes_nearer_to_the_dense_model(task, tmp_path) -> None:
    given = task(rows=40, top_k=32)
    better = []

    def on_better(point, weights) -> None:
        better.append(point)
        for name, mask in given.masks.items():
            values = weights.read(name)
            assert not values[~mask].any()
            assert values[mask].all()

    recovery = Recovery(given, tmp_path, compute="float32")
    outcome = recovery.run(steps(120), on_better=on_better)
    start, *points = outcome.curve
    assert outcome.stopped == "budget"
    assert outcome.tokens == points[-1].tokens == 120 * BATCH
    assert start.tokens == 0 and start.loss is None
    assert outcome.best == min(outcome.curve, key=lambda point: point.heldout_kl) == better[-1]
    assert outcome.best.heldout_kl < 0.5 * start.heldout_kl
    assert outcome.best.agreement > start.agreement + 0.1
    assert points[-1].loss < 0.5 * points[0].loss
    kls = [start.heldout_kl, *(point.heldout_kl for point in better)]
    assert kls == sorted(kls, reverse=True)


def filled(text: RecoveryText) -> np.ndarray:
    """A third of every other row, across documents."""
    mask = np.zeros(text.tokens.shape, np.bool_)
    mask[::2, LENGTH // 3 : 2 * LENGTH // 3] = True
    return mask


def test_another_model_teaches_holes(task, tmp_path) -> None:
    """Its first choices there, and the base's elsewhere, are what the curve counts, and what the
    student comes nearer to."""
    own = task(rows=40, top_k=16, ends=False)
    teacher = oracle("qwen2")
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            if "layers" in name:
                parameter.add_(torch.randn_like(parameter) * parameter.std(correction=0) / 4)
    teacher.save_pretrained(tmp_path / "teacher")
    other = replace(
        own,
        teacher=open_weights(tmp_path / "teacher"),
        taught_by="sha256-other",
        text=replace(own.text, filled=filled(own.text)),
        heldout=replace(own.heldout, filled=filled(own.heldout)),
    )
    outcome = Recovery(other, tmp_path / "other", compute="float32").run(steps(120))
    start, end = outcome.curve[0], outcome.best
    assert end.heldout_kl < 0.6 * start.heldout_kl
    assert end.agreement > start.agreement

    student, dense, heldout = oracle("qwen2"), oracle("qwen2"), own.heldout
    parameters = dict(student.named_parameters())
    agreed, count, kl = 0, 0, 0.0
    with torch.no_grad():
        for name, mask in own.masks.items():
            parameters[name].mul_(torch.from_numpy(mask))
        for row in range(heldout.rows):
            begins = [*np.flatnonzero(heldout.starts[row]), LENGTH]
            for begin, stop in itertools.pairwise(begins):
                ids = torch.from_numpy(heldout.tokens[row, begin:stop].astype(np.int64))[None]
                keep = torch.from_numpy(heldout.learned[row, begin:stop])
                holes = torch.from_numpy(other.heldout.filled[row, begin:stop])[:, None]
                logits = torch.where(holes, teacher(ids).logits[0], dense(ids).logits[0])
                log_p = torch.log_softmax(logits, -1)[keep]
                log_q = torch.log_softmax(student(ids).logits[0], -1)[keep]
                agreed += int((log_p.argmax(1) == log_q.argmax(1)).sum())
                likely = log_p.topk(16, 1).indices
                p, q = log_p.exp().gather(1, likely), log_q.exp().gather(1, likely)
                rest, left = 1 - p.sum(1), 1 - q.sum(1)
                kl += ((p * (p / q).log()).sum(1) + rest * (rest / left).log()).sum().item()
                count += int(keep.sum())
    assert start.agreement == pytest.approx(agreed / count)
    assert start.heldout_kl == pytest.approx(kl / count, rel=0.05)  # a byte for each on the disk

    # What each teacher said is kept apart, and so are states.
    plain = Recovery(own, tmp_path / "other", compute="float32").run(steps(2)).curve
    assert plain[0].tokens == 0 and plain[0].heldout_kl != start.heldout_kl
    refused = replace(other, recipe=replace(other.recipe, top_k=0))
    with pytest.raises(UsageError, match="that is not the base tells top_k outcomes"):
        Recovery(refused, tmp_path / "refused", compute="float32")
    with pytest.raises(CalibrationError, match="the text has no holes to fill"):
        Recovery(replace(other, text=own.text), tmp_path / "refused", compute="float32")


def test_the_ends_of_holes_are_learned_whatever_the_base_says(task, tmp_path) -> None:
    """More often than without, and to the rest of the text nothing happens."""
    last, end = 4, 5
    own = task(rows=40, top_k=16)

    def ended(given: RecoveryText) -> RecoveryText:
        """In every row, a document with a hole that takes its last third, up to a token that is
        nowhere else."""
        tokens, starts = given.tokens.copy(), np.zeros(given.starts.shape, np.bool_)
        tokens[(tokens == end) | (tokens == last)] = 7
        starts[:, 0] = True
        tokens[:, -2:] = last, end
        mask = np.zeros(tokens.shape, np.bool_)
        mask[:, 2 * LENGTH // 3 :] = True
        return RecoveryText(tokens, starts, tokens != end, mask)

    given = replace(own, text=ended(own.text), heldout=ended(own.heldout))
    agreed = {}
    for knows in (False, True):
        recipe = replace(own.recipe, ends=knows)
        recovery = Recovery(replace(given, recipe=recipe), tmp_path / f"{knows}", compute="float32")
        recovery.run(steps(60))
        student = oracle("qwen2")
        with torch.no_grad():
            for name, parameter in student.named_parameters():
                if name in set(recovery.weights.names()):
                    parameter.copy_(torch.from_numpy(recovery.weights.read(name)))
            ids = torch.from_numpy(given.heldout.tokens[:, :-1].astype(np.int64))
            first = student(ids).logits.softmax(-1)[..., end]
        agreed[knows] = first[:, -1].mean().item(), first[:, :-1].mean().item()
    assert agreed[True][0] > 3 * agreed[False][0]
    assert agreed[True][0] > 3 * agreed[True][1]


def test_states_are_the_base_s_whoever_teaches_holes(task, tmp_path) -> None:
    own = task(rows=12, top_k=16, hidden=1.0, ends=False)
    other = replace(
        own,
        teacher=own.reader,
        taught_by="sha256-other",
        text=replace(own.text, filled=filled(own.text)),
        heldout=replace(own.heldout, filled=filled(own.heldout)),
    )
    learned = [
        everything(recovery)
        for recovery in (
            Recovery(given, tmp_path / given.taught_by, compute="float32") for given in (own, other)
        )
        if recovery.run(steps(4))
    ]
    # The other teacher is the base under another name: all it tells is what the base tells.
    assert same(*learned)


@pytest.mark.parametrize("top_k", [0, 16])
def test_with_next_tokens_the_best_is_what_tells_held_out_text_best(task, tmp_path, top_k) -> None:
    given = task(rows=40, top_k=top_k, next_token=0.8)
    # Text that the dense model knows nothing of: the same few tokens in a row.
    texts = []
    for whole in (given.text, given.heldout):
        tokens = np.where(whole.tokens == 0, 0, 7 + whole.positions % 3).astype(np.int32)
        texts.append(RecoveryText(tokens, whole.starts, whole.learned))
    given = replace(given, text=texts[0], heldout=texts[1])
    better = []
    recovery = Recovery(given, tmp_path, compute="float32")
    outcome = recovery.run(steps(60), on_better=lambda point, _: better.append(point))
    start = outcome.curve[0]
    assert outcome.best == min(outcome.curve, key=lambda point: point.heldout_nll) == better[-1]
    assert outcome.best.heldout_nll < 0.5 * start.heldout_nll
    assert outcome.best.heldout_kl > start.heldout_kl, "what the teacher says is left for that"

    # The first figure again, by plain torch.
    student, heldout = oracle("qwen2"), given.heldout
    parameters = dict(student.named_parameters())
    nll, count = 0.0, 0
    with torch.no_grad():
        for name, mask in given.masks.items():
            parameters[name].mul_(torch.from_numpy(mask))
        for row in range(heldout.rows):
            begins = [*np.flatnonzero(heldout.starts[row]), LENGTH]
            for begin, stop in itertools.pairwise(begins):
                ids = torch.from_numpy(heldout.tokens[row, begin:stop].astype(np.int64))
                log_q = torch.log_softmax(student(ids[None]).logits[0], -1)[:-1]
                nll -= log_q.gather(1, ids[1:, None]).sum().item()
                count += len(ids) - 1
    assert start.heldout_nll == pytest.approx(nll / count, rel=1e-4)


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral", "gemma3", "starcoder2"])
@pytest.mark.parametrize("kept", Kept)
def test_a_step_is_that_of_the_whole_model_on_each_document_alone(
    task, tmp_path, family, kept
) -> None:
    """Plain transformers and torch: no packing, no chunks, no packed states."""
    given = task(
        family, rows=3, lr=1e-2, eps=1e-3, warmup=0.0, final=1.0, moments="float32", clip=1e9,
        vectors=True,
    )  # fmt: skip
    recovery = Recovery(given, tmp_path, compute="float32", fit=Fit(kept))
    recovery.run(steps(1))

    dense, student = oracle(family), oracle(family)
    parameters = dict(student.named_parameters())
    learned = {n: p for n, p in parameters.items() if n in given.masks or p.ndim == 1}
    with torch.no_grad():
        for name, mask in given.masks.items():
            parameters[name].mul_(torch.from_numpy(mask))
    total, count = 0.0, 0
    for row in range(3):
        begins = [*np.flatnonzero(given.text.starts[row]), LENGTH]
        for begin, stop in itertools.pairwise(begins):
            ids = torch.from_numpy(given.text.tokens[row, begin:stop].astype(np.int64))[None]
            keep = torch.from_numpy(given.text.learned[row, begin:stop])
            log_p = torch.log_softmax(dense(ids).logits[0], -1)[keep].detach()
            log_q = torch.log_softmax(student(ids).logits[0], -1)[keep]
            total = total + (log_p.exp() * (log_p - log_q)).sum()
            count += int(keep.sum())
    (total / count).backward()
    for name in given.masks:
        parameters[name].grad.mul_(torch.from_numpy(given.masks[name]))
    torch.optim.AdamW(learned.values(), 1e-2, (0.9, 0.95), 1e-3, weight_decay=0.0).step()
    found = everything(recovery)
    assert found.keys() == learned.keys()
    for name, parameter in learned.items():
        moved = np.abs(found[name] - given.start(name)).max()
        assert moved > 1e-4, name
        np.testing.assert_allclose(
            found[name], parameter.detach().numpy(), atol=2e-3 * moved, err_msg=name
        )


@pytest.mark.parametrize("family", ["qwen2", "mistral", "gemma3"])
def test_a_document_does_not_see_its_neighbours(task, tmp_path, family) -> None:
    given = task(family)
    recovery = Recovery(given, tmp_path, compute="float32")
    tokens = given.text.tokens.copy()
    row = int(np.argmax(given.text.starts.sum(1) > 1))
    first = int(np.flatnonzero(given.text.starts[row])[1])
    tokens[row, :first] = tokens[row, :first][::-1]
    changed = RecoveryText(tokens, given.text.starts, np.ones_like(given.text.learned))
    given = RecoveryText(given.text.tokens, given.text.starts, changed.learned)
    with torch.no_grad():
        one = recovery._student.states(given, [row])
        other = recovery._student.states(changed, [row])
    torch.testing.assert_close(one[first:], other[first:], rtol=0, atol=0)
    assert not torch.allclose(one[:first], other[:first], atol=1e-2)


def test_a_stopped_run_goes_on_bit_for_bit(task, tmp_path) -> None:
    whole = Recovery(task(top_k=16), tmp_path / "whole", compute="float32")
    outcome = whole.run(steps(30))
    parts = tmp_path / "parts"
    stopped = Recovery(task(top_k=16), parts, compute="float32").run(steps(30), **after(11))
    assert stopped.stopped == "asked"
    assert stopped.tokens == 11 * BATCH
    notes = Notes()
    rest = Recovery(task(top_k=16), parts, compute="float32")
    resumed = rest.run(steps(30), notes)
    assert "goes on after 792 tokens" in " ".join(notes.notes)
    assert resumed.tokens == outcome.tokens
    assert resumed.curve[-1].heldout_kl == outcome.curve[-1].heldout_kl
    assert same(everything(rest), everything(whole))


@pytest.mark.long
def test_a_killed_run_goes_on_bit_for_bit(task, tmp_path) -> None:
    whole = Recovery(task(), tmp_path / "whole", compute="float32")
    whole.run(steps(30))
    script = f"""
import os, pickle, signal, sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from unit.making.recovery.test_distil import steps
from unit.making.recovery.conftest import RECIPE, masks_of, text
from subllm.making.recovery.distil import Fit, Recovery
from subllm.making.recovery.task import Task
from subllm.models.weights.open import open_weights
from pathlib import Path
reader = open_weights(Path({str(tmp_path / "qwen2")!r}))
task = Task(reader, "sha256-base", masks_of(reader, 0.8), reader.read, text(12), text(4, 9), RECIPE)
done = []
def watch(report):
    done.append(report)
    if len(done) == 21:
        os.kill(os.getpid(), signal.SIGKILL)
Recovery(task, Path({str(tmp_path / "killed")!r}), compute="float32").run(steps(30), on_step=watch)
"""
    child = subprocess.run([sys.executable, "-c", script], check=False, env=os.environ)
    assert child.returncode == -signal.SIGKILL
    notes = Notes()
    rest = Recovery(task(), tmp_path / "killed", compute="float32")
    outcome = rest.run(steps(30), notes)
    assert any("goes on after" in note for note in notes.notes)
    assert outcome.tokens == 30 * BATCH
    assert same(everything(rest), everything(whole))


def test_who_begins_near_takes_small_steps(task, tmp_path, monkeypatch) -> None:
    """In proportion to where this run began, also after a stop; not where it is far."""
    sizes: list[float] = []
    begin = AdamW.begin

    def noted(self: AdamW, lr: float) -> None:
        sizes.append(lr)
        begin(self, lr)

    monkeypatch.setattr(AdamW, "begin", noted)
    far = task(near=1e-9)
    outcome = Recovery(far, tmp_path / "far", compute="float32").run(steps(20))
    usual, sizes[:] = list(sizes), []
    kl = outcome.curve[0].heldout_kl
    near = task(near=4 * kl)
    stopped = Recovery(near, tmp_path / "near", compute="float32")
    stopped.run(steps(20), **after(12))
    rest = Recovery(near, tmp_path / "near", compute="float32")
    nearer = rest.run(steps(20))
    assert sizes == pytest.approx([size / 4 for size in usual])
    sizes.clear()
    best = min(point.heldout_kl for point in nearer.curve)
    rest.run(steps(10))  # another run, which begins where that one ended
    assert max(sizes) == pytest.approx(near.recipe.lr * best / (4 * kl), rel=0.2)
    sizes.clear()
    told = task(near=4 * kl, next_token=0.5)
    Recovery(told, tmp_path / "told", compute="float32").run(steps(20))
    assert sizes == pytest.approx(usual)


def test_a_stop_while_the_teacher_is_asked_waits_for_no_more_than_a_block(task, tmp_path) -> None:
    notes = Notes()
    recovery = Recovery(task(top_k=16), tmp_path, compute="float32")
    outcome = recovery.run(steps(30), notes, stopped=lambda: notes.started.count("teacher") > 1)
    assert outcome.stopped == "asked"
    assert outcome.tokens == 0
    assert notes.started.count("teacher") == 2  # about held-out text, and given up at once
    assert not any(recovery._teacher._answers.has(row) for row in range(12))
    again = Recovery(task(top_k=16), tmp_path, compute="float32").run(steps(2))
    assert again.tokens == 2 * BATCH


def test_after_a_budget_the_next_one_goes_on(task, tmp_path) -> None:
    Recovery(task(), tmp_path, compute="float32").run(steps(10))
    again = Recovery(task(), tmp_path, compute="float32")
    outcome = again.run(steps(10))
    assert outcome.tokens == 20 * BATCH
    tokens = [point.tokens for point in outcome.curve]
    assert tokens == [0, 8 * BATCH, 10 * BATCH, 18 * BATCH, 20 * BATCH]


def test_a_damaged_state_is_noticed_and_begun_anew(task, tmp_path) -> None:
    Recovery(task(), tmp_path, compute="float32").run(steps(10))
    state = tmp_path / "recovery.state"
    data = bytearray(state.read_bytes())
    data[-1000] ^= 1
    state.write_bytes(data)
    notes = Notes()
    outcome = Recovery(task(), tmp_path, compute="float32").run(steps(10), notes)
    assert "is damaged" in notes.notes[0] and "starting over" in notes.notes[0]
    assert outcome.tokens == 10 * BATCH
    state.write_bytes(state.read_bytes()[:200])
    notes = Notes()
    Recovery(task(), tmp_path, compute="float32").run(steps(10), notes)
    assert "is damaged" in notes.notes[0]


def test_the_state_of_another_recovery_is_left_alone(task, tmp_path) -> None:
    Recovery(task(), tmp_path, compute="float32").run(steps(10))
    notes = Notes()
    outcome = Recovery(task(lr=1e-3), tmp_path, compute="float32").run(steps(10), notes)
    assert notes.notes[0] == "the state on disk is of another recovery; starting over"
    assert outcome.tokens == 10 * BATCH


@pytest.mark.parametrize("saved", [True, False])
def test_a_loss_that_is_no_number_leads_to_the_last_good_state(task, tmp_path, saved) -> None:
    recovery = Recovery(task(), tmp_path, compute="float32")
    start = everything(recovery)
    good = []

    def poison(report) -> None:
        if report.tokens == (14 if saved else 3) * BATCH:
            tensor = next(iter(recovery._student.masters))
            values = tensor.values().clone()
            values[0] = torch.nan
            tensor.put(values)

    notes = Notes()
    outcome = recovery.run(
        steps(40), notes, lambda point, weights: good.append(everything(recovery)), None, poison
    )
    assert outcome.stopped == "diverged"
    assert "not finite; going back to the last good state" in notes.notes[-1]
    assert outcome.tokens == (8 * BATCH if saved else 0)
    assert same(everything(recovery), good[-1] if saved else start)


def test_a_full_disk_leaves_the_state_before(task, tiny_disk) -> None:
    from subllm.errors import DiskFullError

    given = task()
    Recovery(given, tiny_disk, compute="float32").run(steps(10))
    before = (tiny_disk / "recovery.state").read_bytes()
    free = os.statvfs(tiny_disk)
    (tiny_disk / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize - 20_000))
    with pytest.raises(DiskFullError):
        Recovery(given, tiny_disk, compute="float32").run(steps(10))
    assert (tiny_disk / "recovery.state").read_bytes() == before


def test_answers_are_asked_for_once_and_shared(task, tmp_path) -> None:
    notes = Notes()
    given = task(top_k=16)
    answers = tmp_path / "answers"
    first = Recovery(given, tmp_path / "one", answers_dir=answers, compute="float32")
    first.run(steps(8), notes)
    assert "teacher" in notes.started
    notes = Notes()
    again = Recovery(
        replace(given, recipe=replace(given.recipe, lr=1e-3)),
        tmp_path / "two", answers_dir=answers, compute="float32",
    )  # fmt: skip
    again.run(steps(8), notes)
    assert "teacher" not in notes.started


def test_answers_from_disk_judge_as_the_dense_model_beside(task, tmp_path) -> None:
    points = [
        Recovery(task(top_k=k), tmp_path / str(k), compute="float32").run(steps(1)).curve[0]
        for k in (0, 64)
    ]
    beside, cached = points
    assert cached.agreement == pytest.approx(beside.agreement, abs=0.02)
    assert 0.5 * beside.heldout_kl < cached.heldout_kl < 1.01 * beside.heldout_kl


def test_what_has_no_mask_stays_unless_the_recipe_says_so(task, tmp_path) -> None:
    given = task()
    name = next(iter(given.masks))
    fewer = {k: mask for k, mask in given.masks.items() if k != name}
    left = Recovery(replace(given, masks=fewer), tmp_path / "a", compute="float32")
    assert name not in left.weights.names()
    recipe = replace(given.recipe, dense=True)
    learns = Recovery(replace(given, masks=fewer, recipe=recipe), tmp_path / "b", compute="float32")
    learns.run(steps(1))
    assert np.count_nonzero(learns.weights.read(name)) == given.masks[name].size
    assert not np.array_equal(learns.weights.read(name), given.start(name))


def test_bfloat16_learns_too(task, tmp_path) -> None:
    outcome = Recovery(task(rows=40), tmp_path, compute="bfloat16").run(steps(60))
    assert outcome.best.heldout_kl < 0.8 * outcome.curve[0].heldout_kl


def test_seconds_are_a_budget_too(task, tmp_path) -> None:
    outcome = Recovery(task(), tmp_path, compute="float32").run(Budget(seconds=1.5))
    assert outcome.stopped == "budget"
    assert outcome.tokens >= BATCH
    assert outcome.seconds < 10


def test_bad_input_is_refused_before_anything_is_built(task, tmp_path) -> None:
    with pytest.raises(CalibrationError, match="48 tokens to learn from are less than one batch"):
        Recovery(task(rows=2), tmp_path)
    with pytest.raises(CalibrationError, match="rows of 24 tokens"):
        Recovery(task(length=32), tmp_path)
    with pytest.raises(UsageError, match="71 tokens is less than one batch of 72"):
        Recovery(task(), tmp_path).run(Budget(tokens=71))
    given = task()
    wrong = {"model.layers.9.mlp.up_proj.weight": np.ones((48, 32), bool)}
    with pytest.raises(ExtractionError, match=r"no block has a matrix model\.layers\.9"):
        Recovery(replace(given, masks=given.masks | wrong), tmp_path)
    other = {"model.layers.1.mlp.up_proj.weight": np.ones((2, 2), bool)}
    with pytest.raises(ExtractionError, match="another shape"):
        Recovery(replace(given, masks=given.masks | other), tmp_path)
    foreign = text(4)
    foreign.tokens[0, 3] = 5000
    with pytest.raises(ExtractionError, match="outside the model's vocabulary"):
        Recovery(replace(given, heldout=foreign), tmp_path)


@pytest.mark.parametrize("top_k", [0, 16])
def test_states_before_the_head_are_learned_where_the_recipe_says_so(task, tmp_path, top_k) -> None:
    rows, errors = [0, 1, 2, 3], []
    for hidden in (0.0, 30.0):
        given = task(rows=40, top_k=top_k, hidden=hidden)
        recovery = Recovery(given, tmp_path / str(hidden), compute="float32")
        recovery.run(steps(40))
        beside = Recovery(task(rows=40), tmp_path / f"{hidden} beside", compute="float32")
        with torch.no_grad():
            states = recovery._student.states(given.heldout, rows)
        errors.append(hidden_error(states, beside._judge.target(rows))[0])
    assert errors[1] < 0.98 * errors[0]
