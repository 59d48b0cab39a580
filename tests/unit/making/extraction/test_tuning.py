"""A sub-model of own text, made from a stored one, on tiny models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from subllm.errors import UsageError
from subllm.kernels.sparsity.packing import unpack
from subllm.making.extraction import prepare_recover as preparing
from subllm.making.extraction import prepare_tune as preparing_tune
from subllm.making.extraction.learn_on import LearnedReport
from subllm.making.extraction.prepare_recover import PreparedRecovery, RecoverOptions
from subllm.making.extraction.prepare_tune import NEXT_TOKEN, Tuning, prepare_tune, tuned_name
from subllm.making.extraction.recover import recover
from subllm.making.extraction.recovery_text import RecoveryData
from subllm.making.extraction.tune import tune
from subllm.making.recovery.budget import parse_budget
from subllm.making.recovery.rows import RecoveryText
from subllm.models.catalog.loader import Catalog
from subllm.models.store.collect import gc, remove
from subllm.models.store.model_files import open_model
from subllm.models.store.recovery_state import state_path
from subllm.models.store.store import Store
from subllm.models.store.verify import verify
from subllm.progress import NullProgress

from .test_extract import Notes
from .test_recovering import (
    HELD,
    LENGTH,
    NAME,
    RECIPE,
    killed,
    masks_of,
    never,
    plain,
    prepared_to_recover,
    soon,  # noqa: F401 (a fixture)
)

NEW = f"{NAME}-tuned"


def text(rows: int) -> RecoveryText:
    """What the tiny model can learn to tell: tokens that count up."""
    tokens = 20 + np.arange(rows * LENGTH, dtype=np.int32).reshape(rows, LENGTH) % 5
    starts = np.zeros(tokens.shape, np.bool_)
    starts[:, [0, 7]] = True
    return RecoveryText(tokens, starts, np.ones(tokens.shape, np.bool_))


DATA = RecoveryData(text(24), text(6), "mix:path:/mine=0.7,random=0.3", 24 * LENGTH)


def prepared_to_tune(
    store: Store, budget: str = "128tok", name: str = NAME, new: str = "", data: str = "mine"
) -> PreparedRecovery:
    """`prepare_tune` on `DATA`."""
    loaded = preparing_tune.load_recovery_data, preparing.load_heldout
    preparing_tune.load_recovery_data = lambda *_, **__: DATA
    preparing.load_heldout = lambda *_, **__: HELD["python"]
    try:
        options = RecoverOptions(recipe=RECIPE, compute="float32")
        return prepare_tune(
            store,
            Tuning(name, data, parse_budget(budget), new),
            options,
            Catalog({}, {}),
            NullProgress(),
        )
    finally:
        preparing_tune.load_recovery_data, preparing.load_heldout = loaded


def tuned(store: Store, budget: str = "128tok", **options: str) -> LearnedReport:
    return tune(store, prepared_to_tune(store, budget, **options), NullProgress(), never)


def test_what_learned_own_text_is_a_new_model_beside_the_one_it_was(store, add_base) -> None:
    add_base("qwen2")
    old = plain(store)
    before, digest = masks_of(store, NAME), store.resolve(NAME)
    notes = Notes()
    report = tune(store, prepared_to_tune(store), notes, never)
    assert (report.name, report.better, report.run.stopped) == (NEW, True, "budget")
    assert store.resolve(NEW) == report.digest
    assert store.resolve(NAME) == digest and store.model(NAME) == old
    assert any("perplexity of your held-out text" in note for note in notes.notes)

    manifest = store.model(NEW)
    assert (manifest.name, manifest.tag, manifest.language) == (NEW, "tuned", "python")
    assert manifest.plan != old.plan and manifest.recovery is None
    (record,) = manifest.tunings
    assert (record.origin, record.manifest) == (NAME, digest)
    assert (record.text, record.heldout) == (DATA.learned.digest, DATA.heldout.digest)
    assert record.source == DATA.source and record.recipe["next_token"] == NEXT_TOKEN
    assert record.before.nll is not None and record.after.nll is not None
    assert record.after.nll < record.before.nll
    best = min(report.run.curve, key=lambda point: point.heldout_nll)
    assert record.tokens == best.tokens
    assert record.after.nll == pytest.approx(best.heldout_nll, rel=1e-5)

    assert all(np.array_equal(before[n], mask) for n, mask in masks_of(store, NEW).items())
    with open_model(store, NEW) as new, open_model(store, NAME) as origin:
        for name, mask in before.items():
            learned = unpack(new.tensor(name))
            assert (learned[~mask] == 0).all(), name
            assert (learned != unpack(origin.tensor(name))).any(), name
    run = store.run_record(report.digest)
    assert run is not None and run.recovery is not None and run.recovery.stopped == "budget"
    gc(store)
    assert all(result.ok for result in verify(store))

    # The same again goes on; a tuned one can be recovered, and be tuned again.
    again = prepared_to_tune(store, "64tok")
    assert again.resumes and again.served == report.digest
    more = tune(store, again, NullProgress(), never)
    assert more.run.curve[-1].tokens == report.run.curve[-1].tokens + 64
    second = tuned(store, "64tok", name=NEW).manifest
    assert [one.origin for one in second.tunings] == [NAME, NEW]
    assert second.name == f"{NEW}-tuned"
    assert remove(store, NEW).freed > 0
    assert not state_path(store.workspace, NEW).exists()
    assert store.model(NAME) == old
    assert all(result.ok for result in verify(store))


def test_what_no_checkpoint_bettered_is_not_made(store, add_base) -> None:
    add_base("qwen2")
    plain(store)
    prepared = prepared_to_tune(store, "64tok")
    still = replace(prepared.job, recipe=replace(prepared.job.recipe, lr=1e-30))
    report = tune(store, replace(prepared, job=still), NullProgress(), never)
    assert (report.better, report.digest) == (False, None)
    assert NEW not in store.names()


@pytest.mark.parametrize(
    ("function", "call"),
    [pytest.param("pack_given", 1, marks=pytest.mark.long), ("claim", 2)],
)
def test_a_killed_tuning_goes_on_also_before_its_name_exists(
    store, add_base, tmp_path: Path, function: str, call: int
) -> None:
    add_base("qwen2")
    plain(store)
    run = (
        "from subllm.making.extraction.tune import tune\n"
        "from unit.making.extraction.test_tuning import prepared_to_tune\n"
        "module._FIRST = module._LEARNING = 0.0\n"
        "tune(store, prepared_to_tune(store, '192tok'), NullProgress(), lambda: False)"
    )
    killed(tmp_path / "home", run, "learn_on", function, call)
    assert NEW not in store.names()
    gc(store)
    assert state_path(store.workspace, NEW).exists()
    prepared = prepared_to_tune(store, "192tok")
    assert prepared.resumes
    notes = Notes()
    report = tune(store, prepared, notes, never)
    assert any("goes on after" in note for note in notes.notes)
    assert report.run.curve[-1].tokens == 192
    assert store.resolve(NEW) == report.digest
    assert all(result.ok for result in verify(store))


def test_a_name_that_is_taken_is_left_alone(store, add_base) -> None:
    add_base("qwen2")
    other = plain(store, tag="tuned")
    plain(store)
    with pytest.raises(UsageError, match=r"python-tuned is there already.*give --name.*subllm rm"):
        prepared_to_tune(store)
    with pytest.raises(UsageError, match="stays as it is; give what comes of it another --name"):
        prepared_to_tune(store, new=NAME)
    with pytest.raises(UsageError, match="cannot name a model for python"):
        prepared_to_tune(store, new=NAME.replace("python", "java"))
    with pytest.raises(UsageError, match="--data is empty"):
        prepared_to_tune(store, new=f"{NAME}-mine", data="")
    assert store.model(NEW) == other
    # Of another model, and one that learned on since.
    tuned(store, "64tok", new=f"{NAME}-mine")
    with pytest.raises(UsageError, match="of another model or other data"):
        prepared_to_tune(store, name=NEW, new=f"{NAME}-mine")
    recover(store, prepared_to_recover(store), NullProgress(), never)
    with pytest.raises(UsageError, match="of another model or other data"):
        prepared_to_tune(store, new=f"{NAME}-mine")


def test_names_where_nobody_says() -> None:
    assert tuned_name("a:1b-python") == "a:1b-python-tuned"
    assert tuned_name("a:1b-python-small") == "a:1b-python-small-tuned"
    with pytest.raises(UsageError, match="longer than"):
        tuned_name("a:1b-python-" + "x" * 84)
