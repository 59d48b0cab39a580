"""What values were rounded from: kept with its model, and never used when it changed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from subllm.errors import CorruptError
from subllm.models.store.collect import gc, remove
from subllm.models.store.sizes import sizes_of
from subllm.models.store.store import Store
from subllm.models.store.unrounded import drop_unrounded, keep_unrounded, unrounded, unrounded_files
from unit.models.store.samples import add_model

PYTHON = "tiny:1m-python"
DATA = bytes(range(256)) * 40


@pytest.fixture
def kept(store: Store, tmp_path: Path) -> Path:
    weights = tmp_path / "home" / "learned.packed"
    weights.write_bytes(DATA)
    with store.writing():
        keep_unrounded(store, store.resolve(PYTHON), weights)
    weights.unlink()
    found = unrounded(store, store.resolve(PYTHON))
    assert found is not None and found.read_bytes() == DATA
    return found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "home")
    add_model(made, PYTHON, b"own")
    return made


def test_it_goes_with_its_model(store: Store, kept: Path) -> None:
    assert gc(store).caches == () and kept.exists()
    assert sizes_of(store, PYTHON).recovery == len(DATA)
    drop_unrounded(store, store.resolve(PYTHON))
    assert kept.exists(), "a name refers to its model"
    assert remove(store, PYTHON).freed >= len(DATA)
    assert not kept.exists()


def test_of_a_model_that_no_name_refers_to_it_is_garbage(store: Store, kept: Path) -> None:
    stray = kept.with_name("sha256-" + "0" * 64 + kept.name[71:])
    kept.rename(stray)
    assert gc(store, dry_run=True).caches == (f"cache/{stray.name}",)
    gc(store)
    assert not stray.exists()


def test_a_newer_one_takes_its_place(store: Store, kept: Path, tmp_path: Path) -> None:
    digest, weights = store.resolve(PYTHON), tmp_path / "home" / "other.packed"
    weights.write_bytes(b"other")
    keep_unrounded(store, digest, weights)
    (found,) = unrounded_files(store.workspace, digest)
    assert found != kept and found.read_bytes() == b"other"


def test_changed_bytes_are_noticed(store: Store, kept: Path) -> None:
    data = bytearray(DATA)
    data[7] ^= 1
    kept.write_bytes(data)
    with pytest.raises(CorruptError, match="is damaged"):
        unrounded(store, store.resolve(PYTHON))


def test_where_files_cannot_be_linked_they_are_copied(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    weights = tmp_path / "home" / "learned.packed"
    weights.write_bytes(DATA)
    keep_unrounded(store, store.resolve(PYTHON), weights)
    found = unrounded(store, store.resolve(PYTHON))
    assert found is not None and found.read_bytes() == DATA
    assert len(list(store.workspace.cache.iterdir())) == 1
