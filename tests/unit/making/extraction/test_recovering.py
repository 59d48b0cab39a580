"""Extraction with recovery, and going on with a stored sub-model, on tiny models."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from subllm.engine.loader import PackedSource
from subllm.errors import DiskFullError, LockedError, StoreError, UsageError
from subllm.kernels.sparsity.packed_file import PackedReader
from subllm.kernels.sparsity.packing import PackedTensor, unpack, unpack_mask
from subllm.making.extraction import learn_on
from subllm.making.extraction import prepare_recover as preparing
from subllm.making.extraction import recovering as recovering_module
from subllm.making.extraction.extract import extract
from subllm.making.extraction.model_pass import pack_given
from subllm.making.extraction.prepare import ExtractOptions, Prepared, recovery_plan
from subllm.making.extraction.prepare_recover import (
    PreparedRecovery,
    RecoverOptions,
    prepare_recover,
)
from subllm.making.extraction.recover import _Recovery, recover
from subllm.making.extraction.recovering import RecoveryJob, check_job
from subllm.making.extraction.recovery_text import RecoveryData
from subllm.making.recovery.budget import parse_budget
from subllm.making.recovery.recipe import Recipe
from subllm.making.recovery.rows import RecoveryText
from subllm.models.catalog.loader import Catalog
from subllm.models.store.collect import gc, remove
from subllm.models.store.files import tree_size
from subllm.models.store.manifest import ModelManifest
from subllm.models.store.model_files import open_model
from subllm.models.store.recovery_state import state_path
from subllm.models.store.store import Store
from subllm.models.store.unrounded import keep_unrounded, unrounded, unrounded_files
from subllm.models.store.verify import verify
from subllm.progress import NullProgress, Progress

from .conftest import BASE, prepared_for, tokens_for
from .test_extract import Notes

NAME = f"{BASE}-python"
LENGTH = 16
RECIPE = Recipe(lr=1e-3, sequences=2, length=LENGTH, warmup=0.0)
HELD = {"python": tokens_for(3, 20, seed=5)}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at held-out text every second step."""
    monkeypatch.setattr("subllm.making.recovery.distil._LEAST_STEPS", 2)


def text(rows: int, seed: int) -> RecoveryText:
    tokens = tokens_for(rows, LENGTH, seed)
    starts = np.zeros(tokens.shape, np.bool_)
    starts[:, [0, 7]] = True
    return RecoveryText(tokens, starts, np.ones(tokens.shape, np.bool_))


DATA = RecoveryData(text(24, 1), text(6, 2), "random", 24 * LENGTH)


def job(budget: str, recipe: Recipe = RECIPE) -> RecoveryJob:
    return RecoveryJob(parse_budget(budget), recipe, DATA)


def with_recovery(store: Store, budget: str = "128tok", **options: object) -> Prepared:
    given = ExtractOptions("python", **({"compute": "float32", "heldout": HELD} | options))
    return prepared_for(store, given, recovery=job(budget))


def plain(store: Store, **options: object) -> ModelManifest:
    given = ExtractOptions("python", **({"compute": "float32", "heldout": HELD} | options))
    return extract(store, prepared_for(store, given), NullProgress()).manifest


def masks_of(store: Store, name: str) -> dict[str, np.ndarray]:
    with open_model(store, name) as files:
        return {
            entry.name: unpack_mask(files.tensor(entry.name))
            for entry in files.manifest.tensors
            if entry.blob == "own"
        }


@pytest.mark.parametrize("values", ["int8", "int4"])
def test_an_extraction_learns_under_its_masks_and_packs_what_it_learned(
    store, add_base, values: str
) -> None:
    add_base("qwen2")
    plain(store, values=values, tag="plain")
    report = extract(store, with_recovery(store, values=values), NullProgress())
    record = report.manifest.recovery
    assert record is not None and record.tokens <= 128
    assert (record.budget, record.source) == ("128tok", "random")
    assert (record.text, record.heldout) == (DATA.learned.digest, DATA.heldout.digest)
    assert record.recipe == RECIPE.identity()
    assert record.after.kl < record.before.kl
    value = report.manifest.perplexity["python"]
    assert value.unpacked == pytest.approx(value.after, rel=0.1)
    assert value.unpacked != value.after

    before, after = masks_of(store, f"{NAME}-plain"), masks_of(store, NAME)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    with open_model(store, NAME) as new, open_model(store, f"{NAME}-plain") as old:
        for name, mask in after.items():
            learned = unpack(new.tensor(name))
            assert (learned[~mask] == 0).all(), name
            assert (learned != unpack(old.tensor(name))).any(), name

    run = store.run_record(report.digest)
    assert run is not None and run.recovery is not None
    assert run.recovery.curve[0].tokens == 0
    assert run.recovery.stopped == "budget"
    assert min(point.heldout_kl for point in run.recovery.curve) == pytest.approx(
        record.after.kl, rel=1e-5
    )
    assert not list(store.workspace.partials.iterdir())
    assert all(result.ok for result in verify(store))


def test_recovery_is_part_of_the_plan(store, add_base) -> None:
    add_base("qwen2")
    without = prepared_for(store, ExtractOptions("python"))
    first, longer = with_recovery(store), with_recovery(store, "160tok")
    assert "recovery" not in without.plan.identity()
    assert len({without.plan.digest, first.plan.digest, longer.plan.digest}) == 3
    other = replace(first.plan, recovery=recovery_plan(job("128tok", replace(RECIPE, lr=2e-3))))
    assert other.digest != first.plan.digest
    moved = replace(first.plan.recovery, source="path:/elsewhere")
    assert replace(first.plan, recovery=moved).digest == first.plan.digest

    made = extract(store, first, NullProgress())
    again = extract(store, with_recovery(store), NullProgress())
    assert (again.cached, again.digest) == (True, made.digest)
    remove(store, NAME)
    assert (
        extract(store, with_recovery(store), NullProgress()).manifest.blobs == made.manifest.blobs
    )


def test_what_is_no_better_leaves_the_pruned_weights(store, add_base) -> None:
    add_base("qwen2")
    old = plain(store, tag="plain")
    prepared = with_recovery(store)
    worse = job("64tok", replace(RECIPE, lr=10.0))
    prepared.recovery = worse
    prepared.plan = replace(prepared.plan, recovery=recovery_plan(worse))
    report = extract(store, prepared, NullProgress())
    record = report.manifest.recovery
    assert record is not None and record.tokens == 0 and record.before == record.after
    with open_model(store, NAME) as new, open_model(store, old.name) as files:
        name = "model.layers.1.mlp.down_proj.weight"
        difference = unpack(new.tensor(name)) - unpack(files.tensor(name))
        assert np.abs(difference).max() < 0.01


# Killed in the middle of learning, of packing what was learned, of committing it.
_KILLED = """
import os, sys
sys.path[:0] = {paths!r}
from pathlib import Path
import subllm.making.extraction.{module} as module
import subllm.making.recovery.distil
subllm.making.recovery.distil._LEAST_STEPS = 2
from subllm.progress import NullProgress, Progress
from subllm.models.store.store import Store
from unit.making.extraction.test_recovering import BASE, NAME, job
from unit.making.extraction.test_recovering import prepared_to_recover, with_recovery
from subllm.making.extraction.extract import extract
from subllm.making.extraction.recover import recover

calls = 0
real = module.{function}

def dies(*args, **kwargs):
    global calls
    calls += 1
    if calls == {call}:
        os.kill(os.getpid(), 9)
    return real(*args, **kwargs)

module.{function} = dies
store = Store(Path({home!r}))
{what}
"""


def killed(home: Path, what: str, module: str, function: str, call: int = 1) -> None:
    tests = Path(__file__).parents[3]
    code = _KILLED.format(
        paths=[str(tests), str(tests.parent / "src")], module=module, function=function,
        call=call, home=str(home), what=what,
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(
    ("function", "call"),
    [
        pytest.param("write_atomic", 1, marks=pytest.mark.long),
        ("pack_given", 1),
        pytest.param("commit_model", 1, marks=pytest.mark.long),
    ],
)
def test_a_killed_extraction_goes_on_after_pruning(
    store, add_base, tmp_path, function: str, call: int
) -> None:
    add_base("qwen2")
    reference = extract(store, with_recovery(store), NullProgress()).manifest
    remove(store, NAME)
    run = "extract(store, with_recovery(store), NullProgress())"
    killed(tmp_path / "home", run, "extract", function, call)
    assert NAME not in store.names()
    notes = Notes()
    report = extract(store, with_recovery(store), notes)
    assert any("resuming after pruning" in note for note in notes.notes)
    assert report.manifest.blobs == reference.blobs
    assert report.manifest.recovery == reference.recovery


def prepared_to_recover(
    store: Store, budget: str = "128tok", progress: Progress | None = None
) -> PreparedRecovery:
    """`prepare_recover` on random tokens."""
    given = {
        "load_recovery_data": DATA,
        "load_heldout": HELD["python"],
        "load_calibration": SimpleNamespace(tokens=tokens_for(6, 24)),
    }
    loaded = {name: getattr(preparing, name) for name in given}
    for name, answer in given.items():
        setattr(preparing, name, lambda *_, answer=answer, **__: answer)
    try:
        options = RecoverOptions(recipe=RECIPE, compute="float32")
        return prepare_recover(
            store, NAME, parse_budget(budget), options, Catalog({}, {}), progress or NullProgress()
        )
    finally:
        for name, function in loaded.items():
            setattr(preparing, name, function)


def never() -> bool:
    return False


@pytest.fixture
def packs_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it takes."""
    monkeypatch.setattr(learn_on, "_FIRST", 0.0)
    monkeypatch.setattr(learn_on, "_LEARNING", 0.0)


def test_better_ones_are_packed_for_a_tenth_of_the_time(store, add_base, monkeypatch) -> None:
    """Seconds pass as they are learned from; each packing takes 40."""
    add_base("qwen2")
    plain(store)
    now, packed = [0.0], []

    def packs(*arguments: object) -> object:
        packed.append(now[0])
        now[0] += 40
        return pack_given(*arguments)  # type: ignore[arg-type]

    class Passes(Notes):
        def advance(self, key: str, amount: float = 1) -> None:
            now[0] += amount if key == "recovery" else 0

    monkeypatch.setattr(learn_on, "pack_given", packs)
    monkeypatch.setattr(learn_on, "_FIRST", 100.0)
    notes = Passes()
    prepared = prepared_to_recover(store, f"{30 * RECIPE.tokens}tok")
    learning = _Recovery(store, prepared, notes, clock=lambda: now[0])
    report = learning.learn(never)
    assert report.better and 100 <= packed[0] < 200
    gaps = [later - sooner for sooner, later in pairwise(packed)]
    assert gaps and all(gap >= 40 + 9 * 40 for gap in gaps[:-1])
    assert len([note for note in notes.notes if "is better now" in note]) == len(packed)


def test_a_stored_sub_model_learns_on_and_each_better_one_is_served(
    store, add_base, packs_each: None
) -> None:
    add_base("qwen2")
    old = plain(store)
    before = masks_of(store, NAME)
    served: list[str] = []

    class Watch(Notes):
        def note(self, message: str) -> None:
            super().note(message)
            if "is better now" in message:
                served.append(store.resolve(NAME))
                assert all(result.ok for result in verify(store))

    first = recover(store, prepared_to_recover(store), Watch(), never)
    assert first.better and first.run.stopped == "budget"
    assert len(served) >= 2 and len(set(served)) == len(served)
    manifest = store.model(NAME)
    assert served[-1] == first.digest == store.resolve(NAME)
    assert manifest.recovery is not None and manifest.recovery.budget == ""
    assert manifest.recovery.after.kl < manifest.recovery.before.kl
    assert manifest.plan != old.plan and manifest.blobs.own != old.blobs.own
    assert manifest.blobs.shared == old.blobs.shared
    assert (manifest.name, manifest.density, manifest.method) == (
        old.name, old.density, old.method,
    )  # fmt: skip
    assert all(np.array_equal(before[n], mask) for n, mask in masks_of(store, NAME).items())
    run = store.run_record(first.digest)
    assert run is not None and run.recovery is not None and run.recovery.stopped == "budget"

    # The one before is kept until gc, the state as long as the name.
    assert store.blobs.has(old.blobs.own)
    state = state_path(store.workspace, NAME)
    assert first.state_bytes == tree_size(state) > 0
    gc(store)
    assert not store.blobs.has(old.blobs.own) and store.blobs.has(manifest.blobs.own)
    assert state.exists()

    # On where it was: what was learned before counts, and so does where it began.
    again = prepared_to_recover(store, "64tok")
    assert again.resumes
    notes = Notes()
    second = recover(store, again, notes, never)
    assert any("goes on after" in note for note in notes.notes)
    record = second.manifest.recovery
    assert record is not None and record.before == manifest.recovery.before
    assert second.run.curve[-1].tokens > first.run.curve[-1].tokens
    assert record.tokens >= manifest.recovery.tokens
    assert remove(store, NAME).freed > 0
    assert not state.exists()


def test_stopping_keeps_what_was_reached(store, add_base) -> None:
    add_base("qwen2")
    old = plain(store)
    learned: list[float] = []

    class Watch(NullProgress):
        def advance(self, key: str, amount: float = 1) -> None:
            if key == "recovery" and amount:
                learned.append(amount)

    prepared = prepared_to_recover(store, "1h")
    report = recover(store, prepared, Watch(), lambda: len(learned) == 3)
    assert report.run.stopped == "asked"
    assert report.run.curve[-1].tokens == 3 * RECIPE.tokens
    assert report.better and report.manifest.recovery is not None
    assert store.model(NAME).blobs.own != old.blobs.own
    assert all(result.ok for result in verify(store))
    assert prepared_to_recover(store, "1h").resumes


@pytest.mark.parametrize("function", ["pack_given", pytest.param("claim", marks=pytest.mark.long)])
def test_a_killed_recovery_leaves_a_whole_store_and_goes_on(
    store, add_base, tmp_path, function: str
) -> None:
    add_base("qwen2")
    plain(store)
    run = "module._FIRST = module._LEARNING = 0.0\n"
    run += "recover(store, prepared_to_recover(store, '192tok'), NullProgress(), lambda: False)"
    killed(tmp_path / "home", run, "learn_on", function, 2)
    assert all(result.ok for result in verify(store))
    gc(store)
    assert state_path(store.workspace, NAME).exists()
    prepared = prepared_to_recover(store, "192tok")
    assert prepared.resumes
    notes = Notes()
    report = recover(store, prepared, notes, never)
    assert any("goes on after" in note for note in notes.notes)
    assert report.run.curve[-1].tokens == 192
    assert all(result.ok for result in verify(store))


def test_a_state_of_other_masks_is_not_gone_on_with(store, add_base) -> None:
    add_base("qwen2")
    plain(store)
    recover(store, prepared_to_recover(store, "64tok"), NullProgress(), never)
    plain(store, pattern="2:4")
    prepared = prepared_to_recover(store, "64tok")
    assert not prepared.resumes
    notes = Notes()
    report = recover(store, prepared, notes, never)
    assert not any("goes on after" in note for note in notes.notes)
    assert report.run.curve[-1].tokens == 64
    assert store.model(NAME).pattern == "2:4"


def test_a_name_that_moves_meanwhile_is_left_alone(store, add_base) -> None:
    add_base("qwen2")
    plain(store)
    prepared = prepared_to_recover(store)
    other = plain(store, pattern="2:4")
    with pytest.raises(StoreError, match="was replaced or removed while it was recovered"):
        recover(store, prepared, NullProgress(), never)
    assert store.model(NAME) == other
    assert all(result.ok for result in verify(store))


def test_a_disk_that_fills_up_leaves_what_is_served(store, add_base, monkeypatch) -> None:
    add_base("qwen2")
    old = plain(store)

    with monkeypatch.context() as patch:
        patch.setattr("subllm.kernels.sparsity.packed_file.PackedWriter._append", full_disk)
        with pytest.raises(DiskFullError, match="disk is full"):
            recover(store, prepared_to_recover(store), NullProgress(), never)
    assert store.model(NAME) == old
    assert all(result.ok for result in verify(store))
    report = recover(store, prepared_to_recover(store), NullProgress(), never)
    assert report.better


def full_disk(*_: object) -> None:
    raise DiskFullError("the disk is full; free some space and run the command again")


def test_two_recoveries_of_one_name(store, add_base) -> None:
    add_base("qwen2")
    plain(store)
    prepared = prepared_to_recover(store)
    with store.lock(f"recover-{NAME}"), pytest.raises(LockedError):
        recover(store, prepared, NullProgress(), never)


def test_the_base_must_be_here_and_be_its_own(store, add_base, tmp_path) -> None:
    add_base("qwen2")
    plain(store)
    base = store.base(BASE)
    other = base.model_copy(update={"source": "path:/another", "revision": "2"})
    remove(store, BASE)
    (tmp_path / "qwen2" / "model.safetensors").rename(tmp_path / "moved")
    with pytest.raises(UsageError, match=r"learns from tiny:1m, whose weights are not .*subllm pu"):
        prepared_to_recover(store)
    store.set_ref(BASE, store.put_manifest(other))
    with pytest.raises(UsageError, match=r"was made from path:.*tiny:1m in the store is path:/"):
        prepared_to_recover(store)


def test_bad_requests_say_what_to_do(store, add_base, monkeypatch) -> None:
    add_base("qwen2")
    plain(store)
    reader = prepared_to_recover(store).reader
    with pytest.raises(UsageError, match="less than the 32 tokens of one step"):
        prepared_to_recover(store, "31tok")
    with pytest.raises(UsageError, match="--for off leaves nothing to do"):
        prepared_to_recover(store, "off")
    monkeypatch.setattr(recovering_module, "free_bytes", lambda device: 1_000_000)
    with pytest.raises(UsageError, match=r"needs 0\.\d GB of memory, 0\.\d GB more than are free"):
        check_job(reader, job("128tok"), 1000, torch.device("cpu"), "float32")
    from subllm.making.extraction.dense import add_dense

    add_dense(store, BASE, NullProgress())
    monkeypatch.setattr(sys.modules[__name__], "NAME", f"{BASE}-dense")
    with pytest.raises(UsageError, match="is dense, there is nothing to recover"):
        prepared_to_recover(store)


def distances(store: Store, unrounded: Path, other: Path | None = None) -> tuple[float, float]:
    """Root mean square over the kept weights, of what was learned: its own, and how far the
    packed values (or those of another such file) are from it."""
    square, apart, count = 0.0, 0.0, 0
    with PackedReader(unrounded) as weights, open_model(store, NAME) as files:
        others = files if other is None else PackedReader(other)
        for name in weights.table:
            mask, learned = unpack_mask(weights.tensor(name)), unpack(weights.tensor(name))
            square += float(np.square(learned[mask]).sum())
            apart += float(np.square((learned - unpack(others.tensor(name)))[mask]).sum())
            count += int(mask.sum())
    return (square / count) ** 0.5, (apart / count) ** 0.5


def test_a_recovery_goes_on_from_what_an_extraction_rounded(
    store, add_base, monkeypatch, tmp_path
) -> None:
    """Two halves are as good as one whole, up to a bf16 rounding and AdamW's new start."""
    add_base("qwen2")
    constant = replace(RECIPE, near=1e-9, final=1.0, lr=3e-4)
    monkeypatch.setattr(sys.modules[__name__], "RECIPE", constant)
    monkeypatch.setattr(sys.modules[__name__], "job", lambda budget, recipe=constant: RecoveryJob(
        parse_budget(budget), recipe, DATA
    ))  # fmt: skip
    whole = extract(store, with_recovery(store, "512tok", values="int4"), NullProgress())
    reference = tmp_path / "reference"
    os.link(unrounded(store, whole.digest), reference)

    halves = []
    for kept in (True, False):
        remove(store, NAME)
        half = extract(
            store, with_recovery(store, "256tok", values="int4", keep_unrounded=kept),
            NullProgress(),
        )  # fmt: skip
        prepared = prepared_to_recover(store, "256tok")
        assert (prepared.unrounded is not None) == kept
        if kept:
            size, rounding = distances(store, prepared.unrounded)
            assert rounding > 0.03 * size, "int4 is coarse"
        report = recover(store, prepared, NullProgress(), never)
        assert report.better
        if kept:
            learned = half.manifest.recovery.after.kl
            assert report.run.curve[0].heldout_kl == pytest.approx(learned, rel=0.02)
            assert not unrounded_files(store.workspace, half.digest), "the newer ones suffice"
        halves.append(distances(store, unrounded(store, report.digest), reference)[1] / size)
    assert halves[0] < 0.015 < 3 * halves[0] < halves[1]


def test_what_learned_under_rounding_is_packed_as_it_is(store, add_base, monkeypatch) -> None:
    add_base("qwen2")
    recipe = replace(RECIPE, rounding=0.5, rounding_lr=1e-3, near=1e-9)
    monkeypatch.setattr(sys.modules[__name__], "RECIPE", recipe)
    learned: dict[str, PackedTensor] = {}
    write = recovering_module.Learned.write

    def spy(self, point, weights) -> None:
        learned.clear()
        learned.update({name: weights.packed(name) for name in weights.names()})
        write(self, point, weights)

    monkeypatch.setattr(recovering_module.Learned, "write", spy)
    prepared = prepared_for(
        store, ExtractOptions("python", values="int4", compute="float32", heldout=HELD),
        recovery=job("256tok", recipe),
    )  # fmt: skip
    report = extract(store, prepared, NullProgress())

    def check(digest: str) -> None:
        rounded = {name for name, tensor in learned.items() if tensor is not None}
        assert rounded and all(".mlp." in name for name in rounded)
        with open_model(store, digest) as files:
            for name in rounded:
                ours, theirs = files.tensor(name), learned[name]
                for plane in ("mask", "data", "scales", "subscales"):
                    assert np.array_equal(getattr(ours, plane), getattr(theirs, plane)), name
                # What goes on learning is what was rounded, not what it was rounded to.
                with PackedReader(unrounded(store, store.resolve(NAME))) as weights:
                    finer = unpack(weights.tensor(name))
                apart = np.abs(finer - unpack(ours)).mean()
                assert 0 < apart < 0.2 * np.abs(finer).mean()

    check(NAME)
    record, run = report.manifest.recovery, report.recovery
    best = min((p for p in run.curve if p.rounded), key=lambda point: point.heldout_kl)
    assert record.after.kl == pytest.approx(best.heldout_kl, rel=1e-5)
    assert record.recipe["rounding"] == 0.5
    assert any(not point.rounded for point in run.curve)

    went = recover(store, prepared_to_recover(store, "256tok"), NullProgress(), never)
    assert went.better and any(point.rounded for point in went.run.curve)
    check(NAME)
    assert all(result.ok for result in verify(store))
    # int8 has nothing to round.
    assert recovering_module.recipe_of(recipe, prepared.reader.spec, "int8").rounding == 0


@pytest.mark.parametrize("family", ["qwen2", "starcoder2", "gemma3_text"])
def test_norms_and_biases_that_learned_are_the_model_s_own(
    store, add_base, monkeypatch, family
) -> None:
    model = add_base(family)
    recipe = replace(RECIPE, vectors=True, near=1e-9)
    monkeypatch.setattr(sys.modules[__name__], "RECIPE", recipe)
    prepared = prepared_for(
        store, ExtractOptions("python", compute="float32", heldout=HELD),
        recovery=job("128tok", recipe),
    )  # fmt: skip
    # Another one, whose vectors are the base's, after it: what they share stays shared.
    report = extract(store, prepared, NullProgress())
    other = plain(store, tag="plain")
    assert report.manifest.recovery.tokens
    assert other.blobs.shared == report.manifest.blobs.shared
    assert report.manifest.density == other.density
    assert all(result.ok for result in verify(store))

    spec = prepared.reader.spec
    vectors = [name for layer in range(spec.num_layers) for name in spec.block_vectors(layer)]
    vectors.append(spec.final_norm_name)

    def check(manifest: ModelManifest) -> dict[str, np.ndarray]:
        """What is served has the perplexity that was measured; returns its vectors."""
        with open_model(store, manifest.name) as files:
            source = PackedSource(files)
            for name in manifest.table():
                parameter = dict(model.named_parameters())[name]
                found = source.vector(name) if parameter.ndim == 1 else unpack(source.tensor(name))
                parameter.data = torch.from_numpy(found.copy())
            ids = torch.from_numpy(HELD["python"].astype(np.int64))
            with torch.no_grad():
                logits = model(ids).logits[:, :-1].double()
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
            value = manifest.perplexity["python"].after
            assert value == pytest.approx(math.exp(loss), rel=1e-4)
            return {name: source.vector(name).copy() for name in vectors}

    base = {name: prepared.reader.read(name) for name in vectors}
    plains, learned = check(other), check(report.manifest)
    assert all(np.array_equal(plains[name], base[name]) for name in vectors)
    assert all(np.abs(learned[name] - base[name]).max() > 1e-4 for name in vectors)

    # A recovery in which they do not learn goes on with them.
    monkeypatch.setattr(sys.modules[__name__], "RECIPE", replace(recipe, vectors=False))
    went = recover(store, prepared_to_recover(store, "128tok"), NullProgress(), never)
    assert went.better
    start, best = went.run.curve[0].heldout_kl, report.manifest.recovery.after.kl
    assert start == pytest.approx(best, rel=0.02)
    again = check(went.manifest)
    assert all(np.array_equal(again[name], learned[name]) for name in vectors)
    assert all(result.ok for result in verify(store))


def test_without_what_was_rounded_a_recovery_goes_on_from_the_values(store, add_base) -> None:
    add_base("qwen2")
    digest = extract(store, with_recovery(store, values="int4"), NullProgress()).digest
    path = unrounded(store, digest)
    assert prepared_to_recover(store).unrounded == path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    notes = Notes()
    assert prepared_to_recover(store, progress=notes).unrounded is None
    assert "were rounded from cannot be used" in notes.notes[-1]
    path.unlink()
    prepared = prepared_to_recover(store)
    assert prepared.unrounded is None
    report = recover(store, prepared, NullProgress(), never)
    assert report.better and report.run.stopped == "budget"

    # Weights under other masks are none of this model's.
    plain(store, pattern="2:4")
    with store.writing():
        keep_unrounded(store, store.resolve(NAME), unrounded(store, report.digest))
    notes = Notes()
    assert prepared_to_recover(store, progress=notes).unrounded is None
    assert "has another mask there" in notes.notes[-1]
